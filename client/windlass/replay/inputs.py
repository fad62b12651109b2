"""Brings the inputs of a past attempt: mounted where this machine can, else copied."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from windlass import environment
from windlass.package import Showing
from windlass.replay.folder import Say
from windlass.replay.plan import RemotePlace
from windlass.store import RemoteFiles, location_of
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.storage import OBJECT_SCHEMES, ObjectLocation, StorageProfile, StorageProfiles

_MOUNT_WITHIN_S = 20.0
_END_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05


def check_inputs(inputs: Sequence[RemotePlace]) -> None:
    """Raises InvalidRequest for what only a node has."""
    for place in inputs:
        if place.url.partition("://")[0] not in OBJECT_SCHEMES:
            raise InvalidRequest(
                f"the input {place.url} can be had on nodes only: use --no-inputs, and put its files into "
                f"the folder yourself ({place.folder}) before you run it with run.py"
            )


def copy_inputs(
    folder: Path, inputs: Sequence[RemotePlace], *, store: RemoteFiles, say: Say, showing: Showing
) -> None:
    """Everything below each; an input that is one object becomes a file of its name."""
    for place in inputs:
        source, target = location_of(place.url), folder / place.folder
        directory = source if source.is_directory else location_of(f"{place.url}/")
        found = store.plan_copy(str(directory), str(target), recursive=True)
        if not found and not source.is_directory:
            with suppress(NotFound):
                found = store.plan_copy(str(source), str(target / PurePosixPath(source.key).name))
        total_bytes = sum(step.size_bytes for step in found)
        say(f"copying {place.url}: {len(found)} files, {total_bytes} bytes")
        with showing(place.url, total_bytes) as progress:
            for step in found:
                store.copy(step, progress=progress)


@contextmanager
def mounted_inputs(
    folder: Path,
    inputs: Sequence[RemotePlace],
    profiles: StorageProfiles,
    *,
    store: RemoteFiles,
    say: Say,
    showing: Showing,
) -> Iterator[None]:
    """Read-only, until it is left; what cannot be mounted is copied."""
    with ExitStack() as mounts:
        for place in inputs:
            source = location_of(place.url)
            point = folder / place.folder
            if source.is_directory and _can_mount() and _mount(source, point, profiles, mounts):
                say(f"mounted {place.url}, read-only")
            else:
                copy_inputs(folder, [place], store=store, say=say, showing=showing)
        yield


def _can_mount() -> bool:
    fuse = Path("/dev/fuse")
    return fuse.exists() and os.access(fuse, os.R_OK | os.W_OK) and _rclone() is not None


def _mount(source: ObjectLocation, point: Path, profiles: StorageProfiles, mounts: ExitStack) -> bool:
    rclone = _rclone()
    if rclone is None:
        return False
    settings = mounts.enter_context(tempfile.TemporaryDirectory(prefix="windlass-replay-"))
    command = [
        *(rclone, "mount", f"store:{source.bucket}/{source.key}", str(point), "--config", os.devnull),
        *("--read-only", "--vfs-cache-mode", "off", "--cache-dir", settings, "--log-level", "ERROR"),
    ]
    daemon = subprocess.Popen(
        command,
        env=environment.for_object_store() | _remote(profiles.for_scheme(source.scheme)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is the command's; the mount goes when it has ended
    )
    mounts.callback(_end, daemon, point)
    deadline = time.monotonic() + _MOUNT_WITHIN_S
    while not os.path.ismount(point):
        if daemon.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _end(daemon: "subprocess.Popen[bytes]", point: Path) -> None:
    """rclone takes its mount off when it is asked to end; a kill would leave a dead one."""
    daemon.terminate()
    try:
        daemon.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        program = shutil.which("fusermount3") or shutil.which("fusermount") or "umount"
        subprocess.run(
            [program, "-u", "-z", str(point)] if "fuser" in program else [program, "-l", str(point)],
            check=False,
            capture_output=True,
        )
        daemon.kill()
        daemon.wait()


def _remote(profile: StorageProfile) -> dict[str, str]:
    """By variables: arguments can be read by every user of the machine."""
    options = {
        "TYPE": "s3",
        "PROVIDER": "Other" if profile.endpoint else "AWS",
        "ENDPOINT": profile.endpoint,
        "REGION": profile.region,
        "ACCESS_KEY_ID": profile.access_key,
        "SECRET_ACCESS_KEY": profile.secret_key,
        "FORCE_PATH_STYLE": "true" if profile.path_style else "false",
    }
    return {f"RCLONE_CONFIG_STORE_{name}": value for name, value in options.items() if value}


def _rclone() -> str | None:
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")
