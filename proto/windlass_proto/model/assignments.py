"""What the coordinator gives an agent, and what an agent says it holds (protocol.md, section 7)."""

from dataclasses import dataclass
from datetime import timedelta

from windlass_proto.model.ids import AttemptRef, ClusterName, JobId, NodeId, TaskKey, TaskName
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.verdicts import InventoryVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRef:
    """One life of an agent's connection; every call of the agent after the first carries it."""

    node_id: NodeId
    node_epoch: int
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietTiming:
    """How often a node has to show that it lives while it has no attempt."""

    poll_wait: timedelta
    """Longest time its poll is parked; each is a sign of life, and its reply renews the lease."""
    interval: timedelta
    """Its next heartbeat is due after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often an agent has to show that it lives."""

    heartbeat_interval: timedelta
    """The next heartbeat is due after this."""
    lease: timedelta
    """Counted from the moment the agent sent the heartbeat that was acknowledged last."""
    poll_wait: timedelta
    """Longest time a poll is parked."""
    kill_grace: timedelta
    """Longest time from SIGTERM to SIGKILL for a command that ends because the lease has."""
    reconnect_within: timedelta = timedelta(0)
    """Who has lost the coordinator tries again at a random moment within this."""
    quiet: QuietTiming | None = None
    """None = the coordinator is too old to take polls for a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentBatch:
    """Attempts of one task: what they share once, and columns of equal length of what differs."""

    task_key: TaskKey
    job_id: JobId
    task_name: TaskName
    instance_count: int
    spec: bytes
    """The task's specification, the very bytes that were stored at submit (decision 0002)."""
    cluster: ClusterName
    index: tuple[int, ...]
    attempt: tuple[int, ...]
    fence: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryItem:
    """An attempt as the agent's own records tell of it."""

    ref: AttemptRef
    phase: AttemptPhase
    seq: int
    """Number of the newest event that the agent has written down."""
    has_exit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictItem:
    """What the agent has to do with an attempt of its inventory."""

    ref: AttemptRef
    verdict: InventoryVerdict
    from_seq: int = 0
    """With REPORT: the first event to send again."""
