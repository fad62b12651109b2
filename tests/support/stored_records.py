"""Records for the conformance suite of the stores: a cluster, a node, a job, claimed attempts.

They go through the transaction alone, so that nothing but the store is tried.
"""

from datetime import UTC, datetime

from windlass_coordinator.core.records import (
    ClusterKey,
    JobKey,
    NodeView,
)
from windlass_coordinator.stores.base import (
    NewJob,
    Store,
    Transaction,
)
from windlass_proto.model.ids import (
    DEFAULT_CLUSTER,
    DEFAULT_TENANT,
    AttemptRef,
    Fence,
    JobId,
    NodeId,
    NodeKey,
    TaskName,
    TenantId,
)
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.status import NodeFacts

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
SOMEBODY_ELSE = TenantId("somebody-else")
FACTS = NodeFacts(
    name="node",
    slots=4,
    cpu=4,
    memory_bytes=1 << 30,
    gpus=2,
    agent_version="1",
    os="Linux",
    containment="none",
)

# More than any test here has to claim: a store may leave out tasks that come after enough work.
_PLENTY = 10_000


def a_cluster(store: Store, name: str = DEFAULT_CLUSTER, *, tenant: TenantId = DEFAULT_TENANT) -> ClusterKey:
    return store.run_now(lambda tx: tx.add_cluster(tenant, name, description="", now=NOW))


def a_node(store: Store, cluster_key: ClusterKey, *, node_id: str = "node-1") -> NodeKey:
    def verb(tx: Transaction) -> NodeKey:
        key = tx.add_node(NodeId(node_id), FACTS, tenant=DEFAULT_TENANT, cluster_key=cluster_key, now=NOW)
        tx.open_session(
            the(tx.node_view(key)),
            FACTS,
            state_id="state",
            boot_id="boot",
            epoch=1,
            nonce="nonce",
            last_nonce="",
            now=NOW,
        )
        return key

    return store.run_now(verb)


def a_task(
    name: str = "task", *, instances: int = 1, after: tuple[str, ...] = (), **more: object
) -> TaskSpec:
    return TaskSpec(
        name=TaskName(name),
        command=Argv(args=("true",)),
        instances=instances,
        after=tuple(TaskName(parent) for parent in after),
        **more,  # type: ignore[arg-type]  # a mixed bag of fields
    )


def new_job(cluster_key: ClusterKey, *tasks: TaskSpec, name: str = "job", priority: int = 0) -> NewJob:
    return NewJob(
        job_id=JobId(f"id-of-{name}"),
        tenant=DEFAULT_TENANT,
        spec=JobSpec(name=name, tasks=tasks or (a_task(),), priority=priority),
        clusters={task.cluster: cluster_key for task in tasks} or {DEFAULT_CLUSTER: cluster_key},
    )


def a_job(
    store: Store, cluster_key: ClusterKey, *tasks: TaskSpec, name: str = "job", priority: int = 0
) -> JobKey:
    job = new_job(cluster_key, *tasks, name=name, priority=priority)
    return store.run_now(lambda tx: tx.add_job(job, now=NOW)[0])


def claim(tx: Transaction, node_key: NodeKey, *, want: int = 1, poll_seq: int = 1) -> list[AttemptRef]:
    """Up to `want` of each task; fresh instances only where there are no others."""
    node = the(tx.node_view(node_key))
    taken = []
    for task in list(tx.claimable(node, limit=_PLENTY, gpus=node.capacity.gpus)):
        fresh = min(want, task.instance_count - task.next_index)
        again = min(want, task.ready_again)
        taken.append((task, again, fresh if not again else 0))
    claimed = tx.claim(node, taken, poll_seq=poll_seq, now=NOW)
    return [
        AttemptRef(task_key=c.task.task_key, index=i, attempt=a, fence=Fence(f))
        for c in claimed
        for i, a, f in zip(c.index, c.attempt, c.fence, strict=True)
    ]


def the(found: NodeView | None) -> NodeView:
    assert found is not None
    return found
