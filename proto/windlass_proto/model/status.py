"""What users see of jobs, tasks, instances, attempts, clusters and nodes.

Times are aware UTC, taken by the coordinator's clock when it learnt of the thing; durations were measured
on the node.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import ClusterName, JobId, NodeId, TaskName
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.states import AttemptState, InstanceState, JobState, LogState, NodeState, TaskState

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCounts:
    """How many instances of a task are in which state; those never claimed count as waiting or ready."""

    waiting: int = 0
    ready: int = 0
    active: int = 0
    retry_wait: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    name: TaskName
    state: TaskState
    after: tuple[TaskName, ...]
    cluster: ClusterName
    instances: int
    counts: InstanceCounts
    started_at: datetime | None
    ended_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    job_id: JobId
    name: str
    description: str
    state: JobState
    reason: str
    """Why it failed or was stopped, in one sentence; "" otherwise."""
    generation: int
    priority: int
    fail_on_instance_failure: bool
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    tasks: tuple[TaskStatus, ...]
    """In the order of the specification; empty in listings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    attempt: int
    fence: int
    state: AttemptState
    node_id: NodeId
    node_name: str
    failure: FailureKind | None
    reason: str
    exit_code: int | None
    exit_signal: int | None
    leased_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    ran_for: timedelta | None
    user_cpu: timedelta | None
    system_cpu: timedelta | None
    peak_memory_bytes: int
    stdout_bytes: int | None
    """What the command wrote; None while that is not known."""
    stderr_bytes: int | None
    image_digest: str = ""
    """Of the container image that it ran in; "" = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    task: TaskName
    index: int
    state: InstanceState
    user_failures: int
    infra_failures: int
    attempts: tuple[AttemptStatus, ...]
    """Newest last; only the newest unless all were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    name: ClusterName
    description: str
    nodes_ready: int
    slots: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a machine is, as its agent found."""

    name: str
    slots: int
    cpu: float
    memory_bytes: int
    agent_version: str
    os: str
    containment: str
    """How well it can contain what it runs, in words for people."""
    gpus: int = 0

    @property
    def capacity(self) -> NodeCapacity:
        return NodeCapacity(cpu=self.cpu, memory_bytes=self.memory_bytes, slots=self.slots, gpus=self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    node_id: NodeId
    name: str
    cluster: ClusterName
    state: NodeState
    slots: int
    live_attempts: int
    cpu: float
    memory_bytes: int
    agent_version: str
    joined_at: datetime
    last_seen_at: datetime | None
    containment: str
    reason: str = ""
    """Why it takes no work; "" when it does."""
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a log stream: bytes, or the news that bytes are missing."""

    offset: int
    data: bytes
    gap_bytes: int = 0
    gap_reason: str = ""
    state: LogState | None = None
    """On the last chunk only."""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A slice of a listing; `next_token` is "" on the last one."""

    items: tuple[T, ...]
    next_token: str
