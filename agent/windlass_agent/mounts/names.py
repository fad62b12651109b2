"""File names in another character set (`input_locale`).

No FUSE client recodes names, so a layer of its own has them: files without content under the wanted names,
each of which tells the overlay where in the mount its content is. Nothing is downloaded for that, but every
name has to be known, so there is a limit. What is copied down is simply renamed.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from windlass_agent.mounts.base import BadMapping, SeenObject
from windlass_agent.mounts.scratch import LONGEST_NAME, directories_of, is_fit

MOST_NAMES = 100_000
"""Objects below one input whose names can be had in another character set."""
_STICKY, _READ_ONLY = 0o1777, 0o555
_OWNER = 65533


def recoded(name: str, codec: str) -> bytes:
    """Part by part. Raises BadMapping for what the character set lacks."""
    try:
        parts = [part.encode(codec) for part in name.split("/")]
    except UnicodeError as problem:
        raise BadMapping(f"the name {name!r} cannot be had in {codec}") from problem
    if any(b"/" in part or b"\0" in part or len(part) > LONGEST_NAME for part in parts):
        raise BadMapping(f"the name {name!r} cannot be a file name in {codec}")
    return b"/".join(parts)


def make_names(folder: Path, objects: Sequence[SeenObject], codec: str) -> None:
    """The layer, in `folder`. Raises BadMapping; OSError where the file system cannot hold it."""
    folder.mkdir()
    folder.chmod(_STICKY)
    here = os.fsencode(folder) + b"/"
    for directory in directories_of(objects):
        path = here + recoded(directory, codec)
        os.mkdir(path)
        os.chmod(path, _STICKY)
    for one in objects:
        if one.name.endswith("/") or not is_fit(one.name):
            continue
        path = here + recoded(one.name, codec)
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _READ_ONLY), "wb"
        ) as file:
            file.truncate(one.size_bytes)
        os.setxattr(path, "trusted.overlay.metacopy", b"")
        os.setxattr(path, "trusted.overlay.redirect", b"/" + one.name.encode())
        seconds = one.modified.timestamp()
        os.utime(path, (seconds, seconds))
        os.chown(path, _OWNER, _OWNER)
        os.chmod(path, _READ_ONLY)


def rename_tree(directory: Path, codec: str) -> None:
    """Everything below it, inner names first; the names are UTF-8 so far. Raises BadMapping."""
    for root, folders, files in os.walk(directory, topdown=False, followlinks=False):
        for name in (*files, *folders):
            wanted = recoded(name, codec)
            if wanted != os.fsencode(name):
                os.rename(os.fsencode(Path(root, name)), os.fsencode(root) + b"/" + wanted)
