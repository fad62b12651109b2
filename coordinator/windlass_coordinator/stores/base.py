"""What a database must be able to do for the coordinator.

A verb (`engine/`) is a synchronous function over a `Transaction`. `Store.run` decides how it runs: alone or
together with others in one commit, on which thread, retried or not; a verb may therefore do nothing but
read and write its transaction. The reply is given when the commit is on disk.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from windlass_coordinator.core.records import (
    AttemptView,
    ClaimableTask,
    Claimed,
    ClusterKey,
    DetachedAttempt,
    Fact,
    HeldAttempt,
    JobKey,
    JobView,
    LogFacts,
    NodeView,
    TaskBump,
    TaskView,
    Wakes,
)
from windlass_coordinator.stores.machines import NodeRecords, RoleRecords
from windlass_coordinator.stores.publishing import PublishRecords
from windlass_coordinator.stores.queries import Queries
from windlass_coordinator.stores.restoring import RestoreRecords
from windlass_coordinator.stores.retention import RetentionRecords
from windlass_coordinator.stores.secrets import SecretRecords
from windlass_proto.model.events import Exited
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import (
    AttemptRef,
    ClusterName,
    JobId,
    NodeKey,
    TaskKey,
    TaskName,
    TenantId,
)
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import AttemptState, InstanceState, JobState, TaskState

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """A live attempt that becomes terminal."""

    ref: AttemptRef
    state: AttemptState
    failure: FailureKind | None = None
    reason: str = ""
    exit: Exited | None = None
    log_ends: tuple[int, int] | None = None
    """Of a LOST attempt: what its node still has of stdout and stderr; None = nothing more comes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChange:
    """What an instance becomes when its attempt has ended."""

    task_key: TaskKey
    index: int
    state: InstanceState
    user_failures: int | None = None
    """None = unchanged."""
    infra_failures: int | None = None
    due_at: datetime | None = None
    raise_fence: bool = False
    """So that the ended attempt can change nothing any more."""
    avoid_node: bool = False
    """The node of its last attempt gets it again only when no other takes it for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A checked job on its way into the store."""

    job_id: JobId
    tenant: TenantId
    spec: JobSpec
    clusters: Mapping[ClusterName, ClusterKey]


class WorkRecords(Protocol):
    """The hot part: claims and reports."""

    def gpus_in_use(self, node_key: NodeKey) -> int:
        """By the live attempts of the node."""

    def claimable(self, node: NodeView, *, limit: int, gpus: int) -> Iterable[ClaimableTask]:
        """Tasks of its cluster with work that the node could run if it were idle but for its GPUs, of which
        it has so many left; highest priority and oldest first: at most `limit`, and perhaps none behind those
        that have `limit` instances to claim together."""

    def claim(
        self,
        node: NodeView,
        taken: Sequence[tuple[ClaimableTask, int, int]],
        *,
        poll_seq: int,
        now: datetime,
    ) -> list[Claimed]:
        """Leases, for each (task, again, fresh), up to so many of its ready-again instances (those that are
        to avoid this node are left out) and so many of its never-claimed ones."""

    def leased_by_poll(self, node: NodeView, *, poll_seq: int) -> list[Claimed]:
        """What the poll with this number has leased already in the node's epoch and is still LEASED."""

    def attempt_views(self, refs: Sequence[AttemptRef]) -> dict[tuple[TaskKey, int, int], AttemptView]:
        """By (task_key, index, attempt); those that do not exist are left out."""

    def failure_counts(self, task_key: TaskKey, index: int) -> tuple[int, int]:
        """(user_failures, infra_failures) of an instance."""

    def progress_attempts(self, changes: Sequence[tuple[AttemptRef, AttemptState]], *, now: datetime) -> None:
        """New states of live attempts."""

    def note_images(self, images: Sequence[tuple[AttemptRef, str]]) -> None:
        """Digests of the container images that attempts run in; the first one stays."""

    def record_exits(self, exits: Sequence[tuple[AttemptRef, Exited]], *, now: datetime) -> None:
        """Exit fields of attempts that are FINALIZING from now on."""

    def end_attempts(self, ends: Sequence[AttemptEnd], *, now: datetime) -> None:
        """Makes live attempts terminal."""

    def change_instances(self, changes: Sequence[InstanceChange]) -> None:
        """New states of instances; READY ones can be claimed again."""

    def task_views(self, keys: Collection[TaskKey]) -> dict[TaskKey, TaskView]: ...

    def bump_tasks(
        self,
        bumps: Mapping[TaskKey, tuple[TaskBump, TaskState]],
        *,
        ended: Collection[TaskKey],
        now: datetime,
    ) -> None:
        """Adds to counters, sets states, and marks those in `ended` as ended now."""

    def due_instances(self, *, now: datetime, limit: int) -> list[tuple[TaskKey, int]]:
        """Instances whose back-off is over."""

    def next_due(self) -> datetime | None:
        """When the next back-off, or the next avoidance of a node, ends."""

    def make_ready(
        self, instances: Sequence[tuple[TaskKey, int]], *, avoid_until: datetime
    ) -> set[ClusterKey]:
        """RETRY_WAIT -> READY; returns the clusters that have work now. Until `avoid_until` those with a node
        to avoid go to another READY node of the cluster, if there is one."""

    def end_avoidance(self, *, now: datetime) -> set[ClusterKey]:
        """Instances that waited long enough for another node may go to any; returns their clusters."""

    def shift_due(self, by: timedelta) -> None:
        """The wall clock was moved by so much: back-offs and drains must last as long as before."""

    def bring_due_forward(self, *, latest: datetime) -> None:
        """No back-off ends after `latest`; for a start after which the wall clock may be another."""

    def nodes_taken_down(self, ref: AttemptRef, *, last: int) -> int:
        """Different nodes among those of the instance's `last` attempts that were LOST with their node or
        keeper, this attempt counted as one of them."""

    def held_attempts(self, node_key: NodeKey) -> list[HeldAttempt]:
        """All live attempts of a node."""

    def stopping_attempts(self, node_key: NodeKey) -> list[AttemptRef]: ...

    def detached_attempts(self, node_key: NodeKey) -> list[DetachedAttempt]:
        """All live attempts of a silent node with their disconnect policies."""

    def unheard_attempts(
        self, node_key: NodeKey, *, since: datetime, until: datetime, limit: int
    ) -> list[AttemptRef]:
        """Attempts that are LEASED since before `since` and that their node has told nothing of; those too
        that are dated after `until`, as the wall clock was moved since."""

    def leased_before(self, node: NodeView, *, poll_seq: int) -> list[AttemptRef]:
        """Attempts that the node's current session was given, by polls before this one or by a session before
        it, and that it has told nothing of."""

    def adopt_attempts(self, node: NodeView, *, epoch: int) -> None:
        """Live attempts of the node go on in its new epoch, not detached any more."""

    def keep_output_due(self, refs: Sequence[AttemptRef], *, epoch: int) -> None:
        """These ended attempts go on in their node's new epoch too: it has output of them that is missing
        here. The output of those that stay in an older epoch is given up (`LogFacts.is_given_up`)."""

    def detach_attempts(self, node_key: NodeKey) -> None: ...

    def log_facts(
        self, job_id: JobId, *, tenant: TenantId, task: str, index: int, attempt: int
    ) -> LogFacts | None:
        """For readers; attempt 0 = the newest."""

    def attempt_log_facts(self, ref: AttemptRef) -> LogFacts | None:
        """The same for one attempt, whoever's it is; None when nothing more of its output is taken."""

    def log_owner(self, node_key: NodeKey, ref: AttemptRef) -> JobId | None:
        """The job whose log this node may append to for this attempt; None = it may not."""


class JobRecords(Protocol):
    """Jobs, tasks, the graph."""

    def find_submission(self, tenant: TenantId, idempotency_key: str) -> tuple[str, JobId] | None:
        """(request digest, job id) of an earlier submit with this key."""

    def add_submission(
        self, tenant: TenantId, idempotency_key: str, *, request_digest: str, job_id: JobId
    ) -> None: ...

    def add_job(self, job: NewJob, *, now: datetime) -> tuple[JobKey, set[ClusterKey]]:
        """Stores job, tasks and edges; returns the clusters that have work at once."""

    def job_view(self, job_id: JobId, *, tenant: TenantId) -> JobView | None: ...

    def job_views(self, keys: Collection[JobKey]) -> dict[JobKey, JobView]: ...

    def job_task_views(self, job_key: JobKey) -> list[TaskView]: ...

    def first_task_by_state(self, job_key: JobKey) -> dict[TaskState, TaskName]:
        """The states that tasks of the job are in, each with the first task in it."""

    def job_spec(self, job_id: JobId, *, tenant: TenantId) -> JobSpec | None: ...

    def children_of(self, keys: Collection[TaskKey]) -> dict[TaskKey, list[TaskKey]]: ...

    def job_edges(self, job_key: JobKey) -> dict[TaskKey, list[TaskKey]]:
        """Parent -> children, of the whole job."""

    def unblock(self, keys: Collection[TaskKey], *, by: Mapping[TaskKey, int]) -> list[TaskView]:
        """Takes `by[key]` blockers from each task; returns those that became READY."""

    def set_task_states(
        self, keys: Collection[TaskKey], state: TaskState, *, reason: str, now: datetime
    ) -> None:
        """A terminal state for tasks without live attempts: no more work, and what waited is stopped."""

    def open_tasks(self, changes: Mapping[JobKey, int]) -> None:
        """Adds to the number of tasks that are not terminal."""

    def start_jobs(self, keys: Collection[JobKey], *, now: datetime) -> None:
        """WAITING -> RUNNING."""

    def end_job(self, job_key: JobKey, state: JobState, *, reason: str, now: datetime) -> None: ...

    def begin_stopping(
        self, job_key: JobKey, *, stop_as: JobState, reason: str, now: datetime
    ) -> dict[TaskKey, TaskState]:
        """The job, its live attempts and their instances become STOPPING; idle instances become STOPPED;
        tasks with live attempts become STOPPING, other open ones STOPPED or (never ready) SKIPPED. Returns
        the tasks that are terminal by this."""

    def nodes_running(self, job_key: JobKey) -> set[NodeKey]:
        """Nodes with live attempts of the job."""

    def restart_job(self, job_key: JobKey, *, all_instances: bool, now: datetime) -> set[ClusterKey]:
        """New generation; what has not succeeded (or all) may be claimed again."""

    def delete_job(self, job_key: JobKey, *, now: datetime) -> None: ...

    def mark_delete_when_done(self, job_key: JobKey) -> None: ...

    def set_priority(self, job_key: JobKey, priority: int) -> None: ...

    def add_facts(self, facts: Sequence[Fact], *, now: datetime) -> None: ...


class Transaction(
    WorkRecords,
    JobRecords,
    NodeRecords,
    RoleRecords,
    PublishRecords,
    SecretRecords,
    RestoreRecords,
    RetentionRecords,
    Protocol,
):
    """Everything a verb may do, and whom to tell when it is committed."""

    wakes: Wakes


class Delivery(Protocol):
    """What somebody is told after a commit."""

    def __call__(self) -> None:
        """On the event loop, after the commit."""

    def take_back(self) -> None:
        """Instead, on any thread: the commit failed, so that it is as if it had never been made."""


Follow = Callable[[Transaction, Wakes], Sequence[Delivery]]
"""Runs inside a commit, of the verbs that woke or right after it, with all that they woke; may read, write
and wake. Never twice at the same time."""


class VerbRunner(Protocol):
    """What duties need of a store."""

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        """See `Store.run`."""


class Store(Protocol):
    """A database, opened."""

    def listen(self, *, follow: Follow, after_commit: Callable[[Wakes], None]) -> None:
        """Sets who hands out work inside a commit, and who is told on the event loop what it changed."""

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        """Runs a verb and answers when its commit is on disk. Raises what the verb raises (nothing is
        written then), or Unavailable."""

    def run_now(self, verb: Callable[[Transaction], T]) -> T:
        """The same without an event loop, for start-up and specs; blocks."""

    async def look_up(self, verb: Callable[[Transaction], T]) -> T:
        """Runs a verb that reads a few rows and writes nothing. Sees all that is committed, and waits for no
        commit where it need not."""

    async def read(self, query: Callable[[Queries], T]) -> T:
        """Runs a query that writes nothing."""

    async def read_small(self, query: Callable[[Queries], T]) -> T:
        """The same for a query of a few rows: may run at once where it is called."""

    def close(self) -> None:
        """Finishes what was begun, then closes. Later calls raise Unavailable."""
