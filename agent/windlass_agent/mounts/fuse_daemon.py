"""rclone as the daemon behind an attempt's object mounts: one process, whatever number of inputs.

Each input is a remote of its own, and all of them are directories of one mount (`combine`), so one attempt
has one daemon that can die, hang and be ended. It is started in a session of its own and outlives the
agent. It reads its credentials from a pipe, once: they are on no command line, on no disk, in no environment.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from windlass_agent.mounts.base import StorageUnavailable, TransferCancelled
from windlass_agent.mounts.kernel import KnownProcess, MountEntry, entry_at, identity_of
from windlass_proto.model.storage import ObjectLocation, StorageProfile

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWNER = 65533
"""Of what is mounted: nobody that a task ever is, so nobody may change it, not even a root without powers."""
_LOOK_S = 0.02
_TERM_S = 2.0
_KILL_S = 5.0
_LOG_LIMIT = "1M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A directory of a bucket, and the server that has it."""

    profile: StorageProfile
    location: ObjectLocation


def find_rclone() -> str | None:
    """Beside the interpreter, where our own dependency puts it, or on the PATH."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


def daemon_command(rclone: str, point: Path, folder: Path, *, config: int, cache_bytes: int) -> list[str]:
    """No value of it comes from the user. `config`: the descriptor that credentials are read from."""
    return [
        *(rclone, "mount2", "all:", str(point), "--config", f"/proc/self/fd/{config}"),
        *("--read-only", "--allow-other", "--default-permissions"),
        *("--uid", str(_OWNER), "--gid", str(_OWNER), "--file-perms", "0555", "--dir-perms", "0555"),
        # The store's own time of an object: asking for the one that rclone keeps costs a call per file.
        *("--use-server-modtime", "--vfs-fast-fingerprint"),
        # What lies there does not change while it is mounted (it is undefined then, as it was before us).
        *("--dir-cache-time", "24h", "--attr-timeout", "1h", "--poll-interval", "0"),
        *("--vfs-cache-mode", "full", "--cache-dir", str(folder / "cache")),
        *("--vfs-cache-max-size", str(cache_bytes), "--vfs-cache-max-age", "24h"),
        # Read ahead is to the disk: a buffer in memory, for each open file, costs copying and helps nobody.
        *("--buffer-size", "0", "--vfs-read-ahead", "16M", "--max-read-ahead", "1M"),
        *("--contimeout", "15s", "--timeout", "60s", "--low-level-retries", "5", "--retries", "3"),
        *("--log-level", "ERROR", "--log-file", str(folder / "rclone.log")),
        *("--log-file-max-size", _LOG_LIMIT, "--log-file-max-backups", "1"),
    ]


def daemon_environment(remotes: Sequence[Remote]) -> dict[str, str]:
    """The whole of it: names of remotes and servers. Nothing of the agent's own, which may hold settings that
    rclone reads."""
    env = {"PATH": SYSTEM_PATH, "HOME": "/nonexistent"}
    for number, remote in enumerate(remotes):
        env |= _section(f"S{number}", _server(remote.profile))
        path = f"S{number}:{remote.location.bucket}/{remote.location.key.strip('/')}"
        env |= _section(f"D{number}", {"type": "alias", "remote": path})
    upstreams = " ".join(f"{number}=D{number}:" for number in range(len(remotes)))
    return env | _section("ALL", {"type": "combine", "upstreams": upstreams})


def _server(profile: StorageProfile) -> dict[str, str]:
    options = {
        "type": "s3",
        "provider": "Other" if profile.endpoint else "AWS",
        "endpoint": profile.endpoint,
        "region": profile.region,
        "force_path_style": "true" if profile.path_style else "false",
        "no_check_bucket": "true",
        # Listings that one page cannot hold are told in this form by all servers.
        "list_version": "2",
    }
    return {name: value for name, value in options.items() if value}


def daemon_config(remotes: Sequence[Remote]) -> bytes:
    """What the environment leaves out, in the form of rclone's configuration file."""
    lines: list[str] = []
    for number, remote in enumerate(remotes):
        if remote.profile.access_key:
            lines += [
                f"[S{number}]",
                f"access_key_id = {remote.profile.access_key}",
                f"secret_access_key = {remote.profile.secret_key}",
            ]
    return "".join(f"{line}\n" for line in lines).encode()


def _section(name: str, options: Mapping[str, str]) -> dict[str, str]:
    return {f"RCLONE_CONFIG_{name}_{option.upper()}": value for option, value in options.items()}


def start_daemon(rclone: str, folder: Path, remotes: Sequence[Remote], *, cache_bytes: int) -> KnownProcess:
    """It mounts on `folder/fuse`, which must be empty. Raises StorageUnavailable."""
    theirs, ours = os.pipe()
    command = daemon_command(rclone, folder / "fuse", folder, config=theirs, cache_bytes=cache_bytes)
    try:
        with open(ours, "wb") as config:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=daemon_environment(remotes),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(theirs,),
                )
            finally:
                os.close(theirs)
            config.write(daemon_config(remotes))
    except OSError as problem:
        raise StorageUnavailable(f"rclone cannot be started: {problem.strerror}") from problem
    # It is to outlive us, which Popen's destructor would warn of; `end_daemon` collects it. Until then its
    # number is its own, whatever has become of it.
    process.returncode = 0
    identity = identity_of(process.pid)
    if identity is None:
        raise StorageUnavailable("rclone ended at once")
    return identity


def wait_for_mount(daemon: KnownProcess, folder: Path, *, within_s: float, cancelled: Event) -> MountEntry:
    """Looks into the kernel's list only. Raises StorageUnavailable, TransferCancelled."""
    until_s = time.monotonic() + within_s
    while not cancelled.is_set():
        entry = entry_at(folder / "fuse")
        if entry is not None:
            return entry
        if not daemon.lives:
            raise StorageUnavailable(f"rclone ended instead of mounting: {_last_words(folder)}")
        if time.monotonic() > until_s:
            raise StorageUnavailable(f"rclone did not mount within {within_s:g} s: {_last_words(folder)}")
        cancelled.wait(_LOOK_S)
    raise TransferCancelled("it was stopped")


def end_daemon(identity: KnownProcess) -> bool:
    """Asks, then kills; also one that is stopped. Whether it is gone."""
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        if not identity.lives:
            break
        with suppress(ProcessLookupError):
            os.kill(identity.pid, number)
        until_s = time.monotonic() + patience_s
        while identity.lives and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
    with suppress(ChildProcessError):  # an agent before this one started it
        os.waitpid(identity.pid, os.WNOHANG)
    return not identity.lives


def _last_words(folder: Path) -> str:
    try:
        lines = (folder / "rclone.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it said nothing"
    return lines[-1] if lines else "it said nothing"
