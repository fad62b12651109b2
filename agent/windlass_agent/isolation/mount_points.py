"""Absolute paths of mappings become mount points: made by the agent, step by step, never through a link."""

import os
import stat
from pathlib import PurePosixPath

PRIVATE = (PurePosixPath("/tmp"), PurePosixPath("/var/tmp"))
"""Isolated attempts have these to themselves; what is in the machine's own does not matter there."""


class BadMountPoint(ValueError):
    """The message says which part of the path is in the way."""


def make_mount_point(target: PurePosixPath, *, is_isolated: bool) -> None:
    """Raises BadMountPoint or OSError. A link there was planted, or is the system's: refused both."""
    if is_isolated and any(target.is_relative_to(private) for private in PRIVATE):
        return
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        here = PurePosixPath("/")
        for name in target.parts[1:]:
            here /= name
            fd = _step(fd, name, here)
    finally:
        os.close(fd)


def _step(fd: int, name: str, here: PurePosixPath) -> int:
    """A descriptor of the next directory, made when it is missing; takes the one before over."""
    try:
        about = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=fd)
    else:
        if stat.S_ISLNK(about.st_mode):
            raise BadMountPoint(f"{here} is a symbolic link; name the directory itself")
        if not stat.S_ISDIR(about.st_mode):
            raise BadMountPoint(f"{here} is not a directory")
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    os.close(fd)
    return inner
