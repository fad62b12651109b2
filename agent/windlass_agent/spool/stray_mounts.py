"""Mounts that lie below a directory of ours and that nobody owns any more.

Found in the kernel's list, never by looking at them: a dead or hanging file system would hold whoever looks.
"""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from windlass_agent.spool import detach_mount
from windlass_agent.spool.left_child import kill_or_leave

_NETWORK = ("nfs", "nfs4")
_GOODBYE_S = 5.0
"""For a server to hear that its client leaves."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


def mounts_below(mountinfo: str, root: Path) -> list[str]:
    """Mount points strictly below `root`, innermost first, from the text of /proc/self/mountinfo."""
    prefix = f"{os.path.realpath(root)}/"
    points = (line.split(" ", 5)[4] for line in mountinfo.splitlines())
    return [point for point in map(plain_path, points) if point.startswith(prefix)][::-1]


def detach_below(root: Path) -> int:
    """Takes them off, lazily: who still has something open there keeps it. How many there were."""
    mountinfo = read_mountinfo()
    points = mounts_below(mountinfo, root)
    served = _points_of_servers(mountinfo)
    for point in points:
        if point in served:
            _detach_beside(point)
        else:
            detach_mount.detach(point)
    return len(points)


def _detach_beside(point: str) -> None:
    """In a process of its own. The mount is gone at once, but then the kernel takes leave of the server, and
    whoever took off the last of its mounts waits until it answers, for hours if need be, or is killed.
    """
    argv = [sys.executable, "-I", "-S", detach_mount.__file__, point]
    try:
        child = subprocess.Popen(argv, env={}, cwd="/", stdin=subprocess.DEVNULL)
    except OSError:
        detach_mount.detach(point)
        return
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GOODBYE_S)
        return
    kill_or_leave(child, within_s=_GOODBYE_S)


def _points_of_servers(mountinfo: str) -> set[str]:
    lines = (line.partition(" - ") for line in mountinfo.splitlines())
    return {
        plain_path(left.split(" ", 5)[4]) for left, _, right in lines if right.split(" ", 1)[0] in _NETWORK
    }


def read_mountinfo() -> str:
    """The mounts of this process's namespace; their names may be of any character set."""
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())


def plain_path(text: str) -> str:
    """As it is, from how the kernel's lists write it."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
