"""What files may be called where remote directories appear as files.

The limits are those that programs on every system can live with, Windows included; a name beyond them would
be seen by some programs of a job and not by others.
"""

import re

NAME_BYTES = 255
"""Of one name, in UTF-8."""
PATH_BYTES = 1023
"""Of a whole path, in UTF-8."""

_UNFIT = re.compile(r'[\x00-\x1f\x7f\\/:*?"<>|]')


def unfit_name(name: str) -> str | None:
    """Why no file can be called so, as the end of a sentence; None = one can."""
    if name in ("", ".", ".."):
        return f"must not hold the name {name!r}" if name else "must not hold an empty name"
    unfit = _UNFIT.search(name)
    if unfit is not None:
        return f"must not hold the character {unfit.group()!r} in a name"
    size = len(name.encode(errors="surrogatepass"))
    if size > NAME_BYTES:
        return f"must hold names of at most {NAME_BYTES} bytes (has one of {size})"
    return None


def unfit_path(path: str) -> str | None:
    """The same of a relative path; one slash at its end is that of a directory."""
    size = len(path.encode(errors="surrogatepass"))
    if size > PATH_BYTES:
        return f"must hold a path of at most {PATH_BYTES} bytes (has one of {size})"
    if not path:
        return None
    reasons = (unfit_name(name) for name in path.removesuffix("/").split("/"))
    return next((reason for reason in reasons if reason is not None), None)
