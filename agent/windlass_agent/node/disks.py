"""Data disks: formatted when they are blank and never otherwise, mounted where the settings say.

A machine's disks may have changed their names since the settings were written, and what is on one is
somebody's. So everything is looked at twice: the kernel must not use the device for anything, blkid must find
nothing on it, and its beginning, its end and samples between must be zeros. Whatever is not exactly as it
should be is told, and left as it is.
"""

import os
import stat
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pydantic import ConfigDict

from windlass_agent.isolation.mount_points import BadMountPoint, make_mount_point
from windlass_agent.spool.stray_mounts import plain_path, read_mountinfo

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_PIECE = 1 << 20
_SAMPLES = 64
"""Places between beginning and end that are looked at."""
_NOTHING_FOUND = 2
"""blkid's exit code for a device on which it knows nothing."""
_FORMAT_S = 3600.0
_MOUNT_S = 600.0
"""A journal may have to be replayed."""
_LOOK_S = 60.0


class FileSystem(StrEnum):
    EXT4 = "ext4"
    XFS = "xfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDisk:
    device: str
    """A name that stays, such as /dev/disk/by-id/...; it may be a link."""
    mount_point: str
    file_system: FileSystem = FileSystem.EXT4

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        path = PurePosixPath(self.mount_point)
        if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            raise ValueError(
                f"mount_point must be an absolute path below / without '..' (is {self.mount_point!r})"
            )
        if not os.path.isabs(self.device):
            raise ValueError(
                f"device must be an absolute path such as /dev/disk/by-id/... (is {self.device!r})"
            )


class DataDiskRefused(Exception):
    """The disk is not as it should be; the message says how. Nothing of it was changed."""


def prepare_disk(disk: DataDisk) -> str:
    """Mounts it, formatted before if it is blank. What was done, for the log; "" = it was mounted already.

    Blocks. Raises DataDiskRefused.
    """
    try:
        device, number = _block_device(disk.device)
        if _is_mounted(disk, number):
            return ""
        _check_unused(device, number)
        found = _file_system_on(device)
        done = "mounted"
        if found is None:
            _check_blank(device)
            _run(f"mkfs.{disk.file_system}", "-q", device, within_s=_FORMAT_S)
            done = f"formatted as {disk.file_system}, mounted"
        elif found != disk.file_system:
            raise DataDiskRefused(f"{disk.device} holds {found}, not {disk.file_system}; it is not touched")
        _mount(disk, device)
        if not _is_mounted(disk, number):
            raise DataDiskRefused(f"{disk.device} is not mounted on {disk.mount_point} after it was")
    except OSError as problem:
        raise DataDiskRefused(f"{disk.device}: {problem}") from problem
    return done


def what_is_wrong(disk: DataDisk) -> str:
    """A look at the kernel's list: whether it is mounted as it should be; "" = it is."""
    try:
        _, number = _block_device(disk.device)
        return "" if _is_mounted(disk, number) else f"{disk.device} is not mounted on {disk.mount_point}"
    except (DataDiskRefused, OSError) as problem:
        return str(problem)


def _block_device(name: str) -> tuple[str, str]:
    """The device behind the name and its number, `8:16`."""
    path = os.path.realpath(name)
    try:
        about = os.stat(path)
    except FileNotFoundError:
        raise DataDiskRefused(f"{name} is not there") from None
    if not stat.S_ISBLK(about.st_mode):
        raise DataDiskRefused(f"{name} is not a block device")
    return path, f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"


def _is_mounted(disk: DataDisk, number: str) -> bool:
    """As it should be. Raises DataDiskRefused when it, or something else, is mounted otherwise."""
    here = os.path.normpath(disk.mount_point)
    there = [(point, kind) for where, point, kind in _mounts() if where == number]
    last = next((where for where, point, _ in reversed(_mounts()) if point == here), None)
    if last not in (None, number):
        raise DataDiskRefused(f"another file system is mounted on {here}; {disk.device} is not")
    # Bind mounts of its own directories, as of attempts, lie elsewhere too.
    if last != number and any(point != here for point, _ in there):
        raise DataDiskRefused(f"{disk.device} is mounted on {there[0][0]}, not on {here}")
    for point, kind in there:
        if point == here and kind != disk.file_system:
            raise DataDiskRefused(f"{disk.device} is mounted on {here} as {kind}, not as {disk.file_system}")
    return last == number


def _mounts() -> list[tuple[str, str, str]]:
    """Device number, mount point and file system of every mount that we see."""
    found = []
    for line in read_mountinfo().splitlines():
        mount, _, source = line.partition(" - ")
        columns = mount.split(" ")
        found.append((columns[2], plain_path(columns[4]), source.split(" ")[0]))
    return found


def _check_unused(device: str, number: str) -> None:
    about = Path("/sys/dev/block") / number
    if (about / "holders").exists() and any((about / "holders").iterdir()):
        raise DataDiskRefused(f"{device} is of something else (RAID, LVM, encryption); not touched")
    if any((inner / "partition").exists() for inner in about.iterdir() if inner.is_dir()):
        raise DataDiskRefused(f"{device} has partitions; name one of them, or another disk")
    if (about / "ro").read_text().strip() != "0":
        raise DataDiskRefused(f"{device} is read-only")
    swaps = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    if device in map(os.path.realpath, swaps):
        raise DataDiskRefused(f"{device} is used for swapping; it is not touched")
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))  # EBUSY when the kernel uses it for anything


def _file_system_on(device: str) -> str | None:
    """None = blkid finds nothing at all. It looks at the device itself (-p), never at what it remembers."""
    done = _call("blkid", "-p", "-o", "export", device, within_s=_LOOK_S)
    if done.returncode == _NOTHING_FOUND and not done.stdout.strip():
        return None
    facts = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if (
        done.returncode != 0
        or "PTTYPE" in facts
        or facts.get("USAGE") != "filesystem"
        or not facts.get("TYPE")
    ):
        what = facts.get("TYPE") or facts.get("PTTYPE") or done.stderr.strip()
        raise DataDiskRefused(f"{device} holds {what or 'what blkid cannot tell'}; it is not touched")
    return facts["TYPE"]


def _check_blank(device: str) -> None:
    """Zeros at its beginning, its end and at places between, read past all caches."""
    fd = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        if size < 16 * _PIECE:
            raise DataDiskRefused(f"{device} has {size} bytes only")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        step = max(_PIECE, (size - _PIECE) // _SAMPLES // _PIECE * _PIECE)
        for offset in (*range(0, size - _PIECE, step), size - _PIECE):
            data = os.pread(fd, _PIECE, offset)
            if len(data) != _PIECE or data.count(0) != _PIECE:
                raise DataDiskRefused(
                    f"{device} has no file system and is not blank (at byte {offset}); it is not touched."
                    " If nothing on it is needed, wipe it: blkdiscard -z"
                )
    finally:
        os.close(fd)


def _mount(disk: DataDisk, device: str) -> None:
    try:
        make_mount_point(PurePosixPath(os.path.normpath(disk.mount_point)), is_isolated=False)
    except BadMountPoint as problem:
        raise DataDiskRefused(f"mount point {disk.mount_point}: {problem}") from problem
    if os.listdir(disk.mount_point):
        raise DataDiskRefused(f"{disk.mount_point} is not empty: what is in it would be hidden")
    options = "nosuid,nodev"
    _run("mount", "-t", disk.file_system, "-o", options, device, disk.mount_point, within_s=_MOUNT_S)


def _run(program: str, *arguments: str, within_s: float) -> None:
    done = _call(program, *arguments, within_s=within_s)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise DataDiskRefused(f"{program} {arguments[-1]}: {lines[-1]}")


def _call(program: str, *arguments: str, within_s: float) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            env={"PATH": _PATH, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise DataDiskRefused(f"the program {program} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DataDiskRefused(f"{program} did not end within {within_s:g} s") from None
