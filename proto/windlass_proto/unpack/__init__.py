"""Unpacks a package; run as a program of its own, with limits, because archives are hostile input.

    python -I -S -X utf8 <this folder> LIMITS <ARCHIVE          in the directory that is to be filled

LIMITS is one JSON object, see `limits.Limits`. Ends with 0; or with 2 and one line on standard output that
says what is wrong with the archive; or with 3 when the machine is at fault. It loads the standard library,
this folder and, for .zst, the library `zstandard`; all of it before it looks at the archive, which it does
without rights, network, or any file but those below its directory (`confinement`). Nodes unpack with it what
they run, and `windlass replay` what it runs again; `launch` starts it.

Members are judged by our own rules, not by tarfile's filters, whose holes were found one after another: only
directories, regular files, and links that stay inside are taken; modes keep their execute bits and nothing
above them; output bytes are counted as they are written, whatever the headers say.
"""
