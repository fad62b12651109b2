"""Removes a directory that a command has left, whatever it has made in it.

`shutil.rmtree` ends at a depth of a thousand and goes into foreign file systems that were mounted below. Here
every directory is first moved up to the top and only then looked into: the depth does not matter, and a mount
point, which cannot be moved, is never entered.
"""

import itertools
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from windlass_agent.spool.stray_mounts import detach_below


def remove_tree(root: Path) -> int:
    """How many entries could not be removed; a missing directory is fine. Blocks as long as it takes."""
    top = str(root)
    names = _names(top)
    if names is None:
        return 0
    if all(_try(os.unlink, f"{top}/{name}") for name in names) and _try(os.rmdir, top):
        return 0  # Nothing but files, as after most commands.
    detach_below(root)
    return _remove_directories(top)


def _remove_directories(top: str) -> int:
    fresh = itertools.count()
    refused: set[str] = set()
    while names := [name for name in _names(top) or () if name not in refused]:
        for name in names:
            if not _remove(f"{top}/{name}", top, fresh):
                refused.add(name)
    return 0 if _try(os.rmdir, top) else max(1, len(refused))


def _remove(path: str, top: str, fresh: "itertools.count[int]") -> bool:
    """An entry of the top; whether it is gone. Directories in it become entries of the top themselves."""
    if _try(os.unlink, path):
        return True
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
    for name in _names(path) or ():
        inner = f"{path}/{name}"
        if not _try(os.unlink, inner):
            _lift(inner, f"{top}/.lifted-{os.getpid()}-{next(fresh)}")
    return _try(os.rmdir, path)


def _lift(path: str, to: str) -> None:
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)  # else it cannot be moved: its `..` changes
    with suppress(OSError):
        os.rename(path, to)


def _names(path: str) -> list[str] | None:
    """None = there is no such directory, or it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return None


def _try(action: Callable[[str], None], path: str) -> bool:
    """Whether it is gone."""
    try:
        action(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
