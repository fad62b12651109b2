"""Starting, reaching and ending the process of a keeper."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import windlass_agent.keeper
from windlass_agent.runner.cgroups import SlotGroups
from windlass_agent.spool.attempt_dir import SEGMENT_BYTES
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.errors import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """What a keeper is started with."""

    build: str = ""
    """Version of the agent; a keeper of another one is replaced when its slot is idle."""
    journal_bytes: int = 1 << 20
    """One journal segment; about 4,000 short commands."""
    segment_bytes: int = SEGMENT_BYTES
    """One output segment."""
    spool_limit_bytes: int = 256 << 20
    """Output of one attempt that may wait on this node, until the agent says otherwise."""
    spool_slot_bytes: int = 1 << 30
    """The same of the whole slot: its share of what may wait on the node."""
    drain_s: float = 5.0
    """After a command's end, for processes that still hold its output."""
    idle_exit_s: float = 600.0
    """A keeper with nothing to do and no agent ends: nobody may ever come back."""
    pids_max: int = 8192
    """Processes and threads of one attempt at once, where the machine can limit them; 0 = any number."""
    state: str = "/nonexistent"
    """The agent's state directory, of which an isolated command sees its own part only."""
    uids: tuple[int, int] = (0, 1)
    """Of the slot's isolated commands: the first, and how many."""
    bwrap: str = ""
    """The program bubblewrap, by full path."""
    cpu_limits: str = "shares"
    """How a claim of cores is made good: `shares`, or `quota` as well."""
    oom_score_adj: int = 500
    """Of commands: the kernel is to end them before their keeper."""
    crash_at: str = ""
    """A failpoint at which the keeper dies; for tests only."""


def start_keeper(
    directory: SlotDir, groups: SlotGroups, settings: KeeperSettings
) -> tuple[int, socket.socket]:
    """Its pid and our end of its first connection; raises OSError.

    By vfork: the agent has used gRPC and must not fork.
    """
    ours, theirs = socket.socketpair()
    config = asdict(settings) | {"slot": str(directory.path), "groups": groups.for_keeper()}
    program = str(Path(windlass_agent.keeper.__file__).parent)
    try:
        with theirs, directory.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", program, json.dumps(config)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=directory.path,
                env={},
                start_new_session=True,
                close_fds=True,
            )
    except OSError:
        ours.close()
        raise
    # It is to outlive us, which Popen's destructor would warn of; `reap` collects it if it does not.
    process.returncode = 0
    ours.settimeout(0)
    return process.pid, ours


def connect_keeper(directory: SlotDir) -> socket.socket:
    """Raises Unavailable when nobody listens. By way of /proc, as a socket's path may have 107 bytes only."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        handle = os.open(directory.path, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{handle}/keeper.sock")
        finally:
            os.close(handle)
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            raise PermissionError(f"it belongs to user {uid}")
    except OSError as error:
        sock.close()
        raise Unavailable(f"the keeper of {directory.path} cannot be reached: {error}") from error
    return sock


def kill_keeper(directory: SlotDir, child_pid: int | None) -> None:
    """By its lock: else the pid may be a stranger's. A child that has no lock yet is ours until reaped."""
    pid = directory.keeper_pid() if directory.keeper_lives() else child_pid
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def boot_id() -> str:
    """A pid from another boot is a stranger's."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def reap(pid: int) -> None:
    """Collects a keeper that this process started; another one's is init's to collect."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def last_words(directory: SlotDir) -> str:
    """What a keeper that failed wrote before its end, as one line."""
    try:
        text = directory.log_path.read_bytes()[-2000:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
