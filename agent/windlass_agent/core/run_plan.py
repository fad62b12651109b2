"""What a keeper is told, and what it tells back: the values between runner and keeper."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # what a keeper gets is JSON

from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPlan:
    """All that is needed to run one command."""

    ref: AttemptRef
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of the command."""
    work_dir: str | None
    """A directory prepared for this attempt; None = the slot's own, empty one."""
    output_dir: str
    """Gets the segments stdout.000000, stderr.000000, ...; made only when the command writes something."""
    timeout_s: float | None
    """On the boot clock; None = no limit."""
    kill_grace_s: float
    """Between SIGTERM and SIGKILL."""
    memory_bytes: int
    """Limit; 0 = none."""
    on_full_spool: str = "drop"
    """What becomes of output that the node has no room for: `drop`, or `block` (the command waits)."""
    outlive_s: float | None = None
    """It is ended when the node's lease has been over for this long; None = never."""
    isolation: Mapping[str, Any] | None = None
    """As `core/isolation.sandbox_plan` makes it; None = the agent's own user and namespaces."""
    pids: int = 0
    """Most processes and threads; 0 = the node's own limit."""
    open_files: int = 0
    """Of each process; 0 = the node's own limit."""
    cpu: float = 0.0
    """Cores; 0 = no claim."""
    undo: tuple[str, ...] = ()
    """Ends what outlives the command's processes, when a signal has ended it; () = there is nothing such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The node's right to keep its attempts, as the agent tells it to keepers that have work."""

    until_s: float
    """Of the boot clock."""
    kill_grace_s: float
    """Between SIGTERM and SIGKILL of what outlived it, at most: the coordinator counts on that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """The command runs."""

    ref: AttemptRef
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with the boot id and the pid it names the process for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """The command has ended and nothing of it is left. Exactly one of `code` and `signal` is set."""

    ref: AttemptRef
    code: int | None
    signal: int | None
    kind: FailureKind | None
    """None = success: code 0 and not stopped."""
    reason: str
    ran_for_us: int
    user_cpu_us: int
    system_cpu_us: int
    peak_memory_bytes: int
    """0 = not known."""
    stdout_end: int
    stderr_end: int
    started: bool
    """False when the command was stopped before it was started."""
    stopped: bool
    leftover_processes: int
    disconnected: bool = False
    """Its keeper ended it, or did not start it, because the node's lease was over."""


KeeperRecord = StartRecord | ExitRecord
