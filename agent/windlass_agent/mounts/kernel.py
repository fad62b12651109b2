"""What the kernel knows of mounts: looked up in its own lists, never by touching a file system that may
hang.
"""

import ctypes
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.spool.stray_mounts import plain_path, read_mountinfo

_CONNECTIONS = Path("/sys/fs/fuse/connections")
_STATE, _START_TICKS = 0, 19
"""Fields of /proc/PID/stat after the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountEntry:
    """A line of mountinfo."""

    device: str
    """`major:minor`, which is also the `st_dev` of what is below."""
    point: str
    kind: str
    """Of the file system, such as `fuse.rclone` or `overlay`."""


def why_not_mountable(rclone: str | None) -> str:
    """What keeps this process from mounting objects; "" = nothing that can be told beforehand."""
    if os.geteuid() != 0:
        return "the agent does not run as root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that can be used"
    if shutil.which("fusermount3") is None:
        return "the program fusermount3 is missing (package fuse3)"
    if rclone is None:
        return "the program rclone is missing"
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        return "the kernel has no overlay file system"
    return ""


def mount_entries(mountinfo: str | None = None) -> list[MountEntry]:
    """In the order in which they were mounted."""
    text = read_mountinfo() if mountinfo is None else mountinfo
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        found.append(MountEntry(device=fields[2], point=plain_path(fields[4]), kind=right.partition(" ")[0]))
    return found


def entry_at(point: Path) -> MountEntry | None:
    """What is mounted exactly there, the uppermost."""
    text = os.path.realpath(point.parent) + "/" + point.name
    return next((entry for entry in reversed(mount_entries()) if entry.point == text), None)


def abort_connection(device: str) -> bool:
    """Frees everybody who waits for a FUSE daemon; whether there was such a connection."""
    with suppress(OSError):
        (_connection(device) / "abort").write_text("1")
        return True
    return False


def is_waited_for(device: str) -> bool:
    """Whether requests wait for the FUSE daemon right now; also when that cannot be told."""
    try:
        return (_connection(device) / "waiting").read_text().strip() != "0"
    except OSError:
        return True


def _connection(device: str) -> Path:
    """Its control files. They are a file system of their own, which is mounted when nobody has."""
    if not any(_CONNECTIONS.iterdir()):
        ctypes.CDLL(None).mount(b"none", os.fsencode(_CONNECTIONS), b"fusectl", 0, None)
    return _CONNECTIONS / device.partition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProcess:
    """A process of this boot; a pid alone may have become a stranger's."""

    pid: int
    start_ticks: int

    @property
    def lives(self) -> bool:
        fields = _stat(self.pid)
        return (
            bool(fields)
            and fields[_STATE] not in (b"Z", b"X")
            and int(fields[_START_TICKS]) == self.start_ticks
        )


def identity_of(pid: int) -> KnownProcess | None:
    """None when it has gone already."""
    fields = _stat(pid)
    return KnownProcess(pid=pid, start_ticks=int(fields[_START_TICKS])) if fields else None


def _stat(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
