"""What can be told of a data directory without reading its database."""

import os
import stat
import time
from pathlib import Path

from windlass_coordinator.admin.database_copy import DATABASE_FILE
from windlass_coordinator.auth.sealing import MASTER_KEY_FILE
from windlass_coordinator.core.disk_space import DiskPolicy
from windlass_coordinator.disk_reserve import RESERVE_FILE
from windlass_coordinator.first_start import ADMIN_TOKEN_FILE, LOCK_FILE
from windlass_proto.model.diagnosis import Finding, good, note, problem, unknown

_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs")
_FLEETING_FILE_SYSTEMS = ("tmpfs", "ramfs")
_SLOW_SYNC_S = 0.5
_OPEN_TO_OTHERS = 0o077
_PRIVATE = (DATABASE_FILE, ADMIN_TOKEN_FILE, MASTER_KEY_FILE)


def look_at_files(data: Path, *, is_running: bool) -> list[Finding]:
    """The process, the disk, the permissions, the token."""
    return [
        _process(data, is_running=is_running),
        _file_system(data),
        _room(data),
        _sync(data),
        *_permissions(data),
        _admin_token(data),
        _left_drafts(data),
    ]


def _process(data: Path, *, is_running: bool) -> Finding:
    if not is_running:
        return note("coordinator.process", data / LOCK_FILE, "no coordinator runs on this directory")
    try:
        holder = (data / LOCK_FILE).read_text().strip() or "unknown"
    except OSError:
        holder = "unknown"
    return good("coordinator.process", data / LOCK_FILE, f"a coordinator runs on it (pid {holder})")


def _file_system(data: Path) -> Finding:
    kind = _kind_of_file_system(data)
    if kind in _NETWORK_FILE_SYSTEMS:
        return problem(
            "disk.file_system",
            data,
            f"it lies on {kind}, whose locks SQLite cannot trust",
            do="stop the coordinator and move the directory to a local disk",
        )
    if kind in _FLEETING_FILE_SYSTEMS:
        return note("disk.file_system", data, f"it lies on {kind}: a reboot of this machine loses everything")
    return good("disk.file_system", data, f"it lies on {kind or 'a file system that could not be told'}")


def _kind_of_file_system(path: Path) -> str:
    """By the longest mount point above it."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount_point = before.split(" ")[4].replace("\\040", " ")
        if path.resolve().is_relative_to(mount_point) and len(mount_point) >= best:
            best, kind = len(mount_point), after.split(" ")[0]
    return kind


def _room(data: Path) -> Finding:
    disk = os.statvfs(data)
    free, policy = disk.f_bavail * disk.f_frsize, DiskPolicy()
    says = f"{free >> 20} MiB are free"
    if disk.f_favail == 0 and disk.f_files:
        return problem("disk.room", data, "no more files can be made", do="remove files on this disk")
    if free < policy.spare_bytes:
        return problem(
            "disk.room", data, f"{says}: new work is refused", do="free space; it goes on by itself then"
        )
    if not (data / RESERVE_FILE).exists():
        return note(
            "disk.room", data, f"{says}; the reserve is not put aside (a coordinator does at its start)"
        )
    return good("disk.room", data, f"{says}, and the reserve is there")


def _sync(data: Path) -> Finding:
    """Asks the disk to keep what it has been given; writes nothing."""
    file = data / DATABASE_FILE
    target = file if file.is_file() else data
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except OSError as error:
        return unknown("disk.sync", target, f"it cannot be opened: {error.strerror}")
    try:
        began = time.monotonic()
        os.fsync(descriptor)
        took_s = time.monotonic() - began
    except OSError as error:
        return problem(
            "disk.sync",
            target,
            f"the disk does not keep what is written ({error.strerror})",
            do="look at the kernel's messages, replace the disk, restore a backup",
        )
    finally:
        os.close(descriptor)
    if took_s > _SLOW_SYNC_S:
        return note("disk.sync", target, f"a sync took {took_s:.1f} s: every answer waits for one")
    return good("disk.sync", target, f"a sync took {1000 * took_s:.1f} ms")


def _permissions(data: Path) -> list[Finding]:
    wrong = []
    for path in (data, *sorted(data.iterdir())):
        about = path.lstat()
        is_secret = path == data or path.name.startswith(_PRIVATE) or path.is_dir()
        if is_secret and stat.S_IMODE(about.st_mode) & _OPEN_TO_OTHERS:
            mode = "0700" if path.is_dir() else "0600"
            wrong.append(
                problem(
                    "files.permissions",
                    path,
                    f"others may use it (mode {stat.S_IMODE(about.st_mode):04o})",
                    do=f"chmod {mode} {path}",
                )
            )
        if about.st_uid != data.stat().st_uid:
            wrong.append(
                problem(
                    "files.owner",
                    path,
                    f"it belongs to uid {about.st_uid}, the directory to uid {data.stat().st_uid}",
                    do=f"chown {data.stat().st_uid} {path}",
                )
            )
    return wrong or [good("files.permissions", data, "only its owner may read it")]


def _admin_token(data: Path) -> Finding:
    file = data / ADMIN_TOKEN_FILE
    if file.exists():
        return good("token.admin", file, "it is there")
    return note("token.admin", file, "it is not there", do="the next start of the coordinator makes one")


def _left_drafts(data: Path) -> Finding:
    left = [path.name for path in data.iterdir() if path.name.endswith((".new", ".part"))]
    if left:
        return note(
            "files.drafts", data, f"a start was interrupted: {', '.join(sorted(left))} may be removed"
        )
    return good("files.drafts", data, "nothing was left half done")
