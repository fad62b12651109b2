"""What the kernel counts together: the slot's cgroup, its memory, the keeper's descendants."""

import os
import signal
from collections.abc import Mapping

KEEPER_BYTES = 16 << 20
"""The keeper's own memory, which is charged to the slot too, on top of a command's limit."""
HELPERS = {"": 1, "standard": 3, "strict": 4}
"""Processes in the slot's group that are not the command's, by its isolation: its keeper, and bubblewrap with
what holds the namespaces."""
CPU_PERIOD_US = 100_000


def write_once(path: str, text: str) -> None:
    """One write(2), as the kernel's control files want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class Group:
    """The slot's cgroup, as far as the machine has one: the keeper lives in it, commands are born there."""

    def __init__(self, paths: Mapping[str, str], pids_max: int) -> None:
        """Moves the keeper in: once, because such a write costs 6 to 8 ms on an idle machine.

        `pids_max`: processes and threads in it at once, which holds a fork bomb; 0 = any number.
        """
        self._own = b"%d\n" % os.getpid()
        for path in dict.fromkeys(paths.values()):
            write_once(f"{path}/cgroup.procs", str(os.getpid()))
        self._pids_max = f"{paths['pids']}/pids.max" if "pids" in paths else ""
        self._pids_most = pids_max
        self._pids_allowed = str(pids_max) if pids_max else "max"
        self._procs = f"{paths['procs']}/cgroup.procs" if "procs" in paths else ""
        self.allow_forks()  # The keeper before this one may have died while it forbade them.
        # Only a v2 list may be kept open: v1 remembers what it said for as long as the file is.
        is_v2 = self._procs and os.path.exists(f"{paths['procs']}/cgroup.controllers")
        self._procs_fd = os.open(self._procs, os.O_RDONLY) if is_v2 else -1

    def others(self) -> set[int]:
        """Processes in the group without the keeper; none when there is no group."""
        if self._procs_fd >= 0:
            text = os.pread(self._procs_fd, 4096, 0)
            if len(text) > 4000:
                text = os.pread(self._procs_fd, 1 << 20, 0)
        elif self._procs:
            with open(self._procs, "rb") as file:
                text = file.read()
        else:
            return set()
        return set() if text == self._own else {int(pid) for pid in text.split()} - {os.getpid()}

    def forbid_forks(self) -> None:
        if self._pids_max:
            write_once(self._pids_max, "0")

    def allow_forks(self) -> None:
        if self._pids_max:
            write_once(self._pids_max, self._pids_allowed)

    @property
    def limits_pids(self) -> bool:
        return bool(self._pids_max)

    def limit_pids(self, most: int, profile: str) -> None:
        """Of the next command; 0 = as the node says, which is also the most."""
        limits = [limit for limit in (most and most + HELPERS[profile], self._pids_most) if limit]
        allowed = str(min(limits)) if limits else "max"
        if allowed != self._pids_allowed:
            self._pids_allowed = allowed
            self.allow_forks()

    def kill_all(self) -> set[int]:
        """Signals all that lives in the group or below the keeper, and tells which.

        A process is signalled only when it is there before *and* after its pidfd was opened: a pid that was
        given to a stranger in between stays alone.
        """
        handles: dict[int, int] = {}
        for pid in self._victims():
            try:
                handles[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        victims = self._victims() & handles.keys()
        for pid, handle in handles.items():
            try:
                if pid in victims:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                victims.discard(pid)
            finally:
                os.close(handle)
        return victims

    def _victims(self) -> set[int]:
        return self.others() | descendants(os.getpid())


class Memory:
    """Limit, peak and out-of-memory kills of the slot's memory cgroup, v1 or v2."""

    def __init__(self, path: str) -> None:
        is_v1 = os.path.exists(f"{path}/memory.limit_in_bytes")
        v1, v2 = ("limit_in_bytes", "oom_control", "max_usage_in_bytes"), ("max", "events", "peak")
        self._limit_path, events, peak = (f"{path}/memory.{name}" for name in (v1 if is_v1 else v2))
        self._no_limit = "-1" if is_v1 else "max"
        self._limit = -1
        self._oom_kills = self._base = 0
        self._events_fd = os.open(events, os.O_RDONLY)
        self._peak_fd = -1
        self.prepare(0)
        try:
            self._peak_fd = os.open(peak, os.O_RDWR)
            self.prepare(0)
        except OSError:
            # v2 before Linux 6.12: a peak cannot be reset, so that of one command is not known.
            self._peak_fd = -1
        self.oom_killed()

    def prepare(self, limit: int) -> None:
        if limit != self._limit:
            write_once(self._limit_path, str(limit + KEEPER_BYTES) if limit else self._no_limit)
            self._limit = limit
        if self._peak_fd >= 0:
            os.pwrite(self._peak_fd, b"0", 0)
            self._base = int(os.pread(self._peak_fd, 64, 0))

    def peak(self) -> int:
        """Bytes beyond what the group held before the command; 0 = not known."""
        return max(0, int(os.pread(self._peak_fd, 64, 0)) - self._base) if self._peak_fd >= 0 else 0

    def oom_killed(self) -> bool:
        """Whether the kernel killed something in the group since the last call."""
        before = self._oom_kills
        words = os.pread(self._events_fd, 4096, 0).split()
        self._oom_kills = int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0
        return self._oom_kills > before


class Cpu:
    """The slot's share of the processors, v1 or v2; as a share it counts only when they are short."""

    def __init__(self, path: str, kind: str) -> None:
        self._path, self._kind, self._cores = path, kind, 0.0
        self._is_v1 = os.path.exists(f"{path}/cpu.shares")

    def prepare(self, cores: float) -> None:
        """0 = as much as one core when it is short, and no quota."""
        if cores == self._cores:
            return
        share = cores or 1.0
        if self._is_v1:
            self._write("shares", str(min(262_144, max(2, int(1024 * share)))))
        else:
            self._write("weight", str(min(10_000, max(1, int(100 * share)))))
        if self._kind == "quota":
            quota = max(1_000, int(cores * CPU_PERIOD_US)) if cores else 0
            if self._is_v1:
                self._write("cfs_quota_us", str(quota or -1))
            else:
                self._write("max", f"{quota or 'max'} {CPU_PERIOD_US}")
        self._cores = cores

    def _write(self, name: str, text: str) -> None:
        write_once(f"{self._path}/cpu.{name}", text)


def descendants(root: int) -> set[int]:
    """Living processes below `root`; orphans are among them, as they become children of a subreaper."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state != b"Z":
                children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    ahead = [root]
    while ahead:
        below = children.get(ahead.pop(), [])
        found.update(below)
        ahead.extend(below)
    return found
