"""Small frozen views of what is stored: just what a decision needs (decision D1 of the architecture).

Whole records would cost the hot verbs 2.6 times; a view is read, decided on, and dropped. Times are aware
UTC; numbers named `*_key` are the store's own.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NewType

from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import ClusterName, Fence, JobId, NodeId, NodeKey, TaskKey, TaskName, TenantId
from windlass_proto.model.resources import NodeCapacity, Resources
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, JobState, NodeState, TaskState

JobKey = NewType("JobKey", int)
ClusterKey = NewType("ClusterKey", int)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as verbs that steer it see it."""

    job_key: JobKey
    job_id: JobId
    tenant: TenantId
    state: JobState
    stop_as: JobState | None
    """What a STOPPING job ends as."""
    fail_fast: bool
    generation: int
    priority: int
    tasks_open: int
    """Tasks that are not terminal."""
    delete_when_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task's counters and what is decided by them."""

    task_key: TaskKey
    job_key: JobKey
    name: TaskName
    state: TaskState
    cluster_key: ClusterKey
    instance_count: int
    next_index: int
    """Instances below it have a record; the others have never been claimed (decision D2)."""
    ready_again: int
    active: int
    retry_wait: int
    succeeded: int
    failed: int
    stopped: int
    max_retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimableTask:
    """A task with work for a node, and what its assignments share."""

    task_key: TaskKey
    job_key: JobKey
    job_id: JobId
    name: TaskName
    instance_count: int
    next_index: int
    ready_again: int
    gpus: int
    """Of each instance."""
    spec: bytes
    cluster: ClusterName
    job_is_waiting: bool
    """No instance of the job has been claimed yet."""
    is_fresh: bool
    """No instance of the task has been claimed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTask:
    """A task with work of which nothing is on any node, and the sizes of the nodes that could take some."""

    name: TaskName
    cluster: ClusterName
    needs: Resources
    sizes: tuple[NodeCapacity, ...]
    """Different ones, of READY nodes of its cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Attempts of one task that a claim made."""

    task: ClaimableTask
    index: tuple[int, ...]
    attempt: tuple[int, ...]
    fence: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """An attempt as the judge of a report sees it."""

    attempt: int
    fence: Fence
    state: AttemptState
    node_key: NodeKey
    failure: FailureKind | None
    exit_code: int | None
    exit_signal: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAttempt:
    """A live attempt of a node."""

    task_key: TaskKey
    index: int
    attempt: int
    fence: Fence
    state: AttemptState


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedAttempt:
    """A live attempt of a silent node, and how long it may go on there."""

    held: HeldAttempt
    disconnect: DisconnectPolicy
    outlives_lease_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as its calls see it."""

    node_key: NodeKey
    node_id: NodeId
    name: str
    tenant: TenantId
    cluster: ClusterName
    cluster_key: ClusterKey
    state: NodeState
    state_id: str
    boot_id: str
    epoch: int
    nonce: str
    last_nonce: str
    """The one before; still good until the first call with the new one (its reply may have been lost)."""
    capacity: NodeCapacity
    wish: NodeState | None = None
    """DRAINING or QUARANTINED: what it is as soon as it has a session; None = it takes work."""
    reason: str = ""
    """Why it takes no work."""
    drain_by: datetime | None = None
    prepare_failed_jobs: frozenset[JobKey] = frozenset()
    """Jobs of which it could not prepare an attempt since it last started a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A periodic duty of one coordinator among several, in one of its terms."""

    name: str
    holder: str
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSight:
    """Who holds a role, as stored; nobody may judge by the time of day whether the holder lives."""

    holder: str
    term: int
    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that happened, recorded in the transaction of the change."""

    kind: FactKind
    tenant: TenantId
    job_key: JobKey | None = None
    task_key: TaskKey | None = None
    node_key: NodeKey | None = None
    payload: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What decides whether a log stream is complete."""

    job_id: JobId
    task_key: TaskKey
    index: int
    attempt: int
    ended: bool
    stdout_end: int | None
    """Bytes the command produced; None while not known."""
    stderr_end: int | None
    is_given_up: bool = False
    """What has not arrived by now never will: its node is gone, or has come back without a record of it."""
    is_lost: bool = False
    """It ended with its keeper: the command may have written more than its node had."""


@dataclass(slots=True)
class TaskBump:
    """How one verb changes a task's counters; gathered first, written once."""

    active: int = 0
    ready_again: int = 0
    retry_wait: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0


@dataclass(slots=True)
class Wakes:
    """Whom a committed verb concerns; told after the commit."""

    clusters: set[ClusterKey] = field(default_factory=set)
    """Have new work."""
    nodes: set[NodeKey] = field(default_factory=set)
    """Have attempts to stop."""
    changed_nodes: set[NodeKey] = field(default_factory=set)
    """Have another session, another state or attempts to stop: what was seen of them does not hold."""
    jobs: set[JobId] = field(default_factory=set)
    """Have changed."""
    ended_jobs: set[JobId] = field(default_factory=set)
    """Have become terminal, or are gone."""
    deleted_jobs: set[JobId] = field(default_factory=set)
    due: datetime | None = None
    """A back-off ends then."""
    everything: bool = False
    """Nobody knows any more whom: whoever waits looks for itself."""

    def merge(self, other: "Wakes") -> None:
        """Adds all of `other`."""
        self.clusters |= other.clusters
        self.nodes |= other.nodes
        self.changed_nodes |= other.changed_nodes
        self.jobs |= other.jobs
        self.ended_jobs |= other.ended_jobs
        self.deleted_jobs |= other.deleted_jobs
        self.everything |= other.everything
        if other.due is not None:
            self.wake_at(other.due)

    def wake_at(self, due: datetime) -> None:
        """A back-off ends at `due`."""
        self.due = due if self.due is None else min(self.due, due)
