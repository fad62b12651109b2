"""Gives a prepared directory to the attempt's user, by descriptors: no name is looked up twice."""

import os
import stat
from pathlib import Path


def hand_over_tree(root: Path, uid: int, *, device: int) -> None:
    """All that lies in it on this file system, but no mount, not even its top. Raises OSError.

    A mounted input lets its user make files by its permissions. Were its directory the user's own, the sticky
    bit would not keep him from removing what is in it; that of a server would change for everybody.
    A file with several names stays ours: one of them may be another's, such as a cache's.
    """
    top = _open(str(root))
    if os.fstat(top).st_dev != device:
        os.close(top)
        return
    ahead = [top]
    while ahead:
        fd = ahead.pop()
        try:
            os.fchown(fd, uid, uid)
            for name in os.listdir(fd):
                ahead += _hand_over_entry(fd, name, uid, device)
        except OSError:
            for left in ahead:
                os.close(left)
            raise
        finally:
            os.close(fd)


def _hand_over_entry(fd: int, name: str, uid: int, device: int) -> list[int]:
    about = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if about.st_dev != device:
        return []
    if stat.S_ISDIR(about.st_mode):
        return [_open(name, fd)]
    if about.st_nlink == 1:
        os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)
    return []


def _open(name: str, within: int | None = None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
