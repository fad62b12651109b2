"""Mounts that lie below a directory of ours and that nobody owns any more.

Found in the kernel's list, never by looking at them: a dead or hanging file system would hold whoever looks.
"""

import ctypes
import os
import re
from pathlib import Path

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ESCAPED = re.compile(r"\\([0-7]{3})")


def mounts_below(mountinfo: str, root: Path) -> list[str]:
    """Mount points strictly below `root`, innermost first, from the text of /proc/self/mountinfo."""
    prefix = f"{os.path.realpath(root)}/"
    points = (line.split(" ", 5)[4] for line in mountinfo.splitlines())
    return [point for point in map(plain_path, points) if point.startswith(prefix)][::-1]


def detach_below(root: Path) -> int:
    """Takes them off, lazily: who still has something open there keeps it. How many there were."""
    points = mounts_below(read_mountinfo(), root)
    for point in points:
        ctypes.CDLL(None).umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    return len(points)


def read_mountinfo() -> str:
    """The mounts of this process's namespace; their names may be of any character set."""
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())


def plain_path(text: str) -> str:
    """As it is, from how the kernel's lists write it."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
