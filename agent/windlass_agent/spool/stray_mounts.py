"""Mounts that lie below a directory of ours and that nobody owns any more.

Found in the kernel's list, never by looking at them: a dead or hanging file system would hold whoever looks.
"""

import ctypes
import os
import re
from pathlib import Path

_MNT_DETACH = 2
_ESCAPED = re.compile(r"\\([0-7]{3})")


def mounts_below(mountinfo: str, root: Path) -> list[str]:
    """Mount points strictly below `root`, innermost first, from the text of /proc/self/mountinfo."""
    prefix = f"{os.path.realpath(root)}/"
    points = (line.split(" ", 5)[4] for line in mountinfo.splitlines())
    return [point for point in map(_plain, points) if point.startswith(prefix)][::-1]


def detach_below(root: Path) -> int:
    """Takes them off, lazily: who still has something open there keeps it. How many there were."""
    points = mounts_below(Path("/proc/self/mountinfo").read_text(), root)
    for point in points:
        ctypes.CDLL(None).umount2(os.fsencode(point), _MNT_DETACH)
    return len(points)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
