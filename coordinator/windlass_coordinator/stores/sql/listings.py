"""The queries behind what users look at, in SQL that every database understands."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select

from windlass_coordinator.core.records import WaitingTask
from windlass_coordinator.stores.schema import tables as t
from windlass_coordinator.stores.sql.times import from_us, from_us_or_none
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import ClusterName, JobId, NodeId, TaskName, TenantId
from windlass_proto.model.resources import NodeCapacity, Resources
from windlass_proto.model.states import AttemptState, InstanceState, JobState, NodeState, TaskState
from windlass_proto.model.status import (
    AttemptStatus,
    ClusterStatus,
    InstanceCounts,
    InstanceStatus,
    JobStatus,
    NodeStatus,
    TaskStatus,
)

TASKS_OF_JOB = """
SELECT t.name, t.state, c.name, t.instance_count, t.next_index, t.ready_again, t.active, t.retry_wait,
         t.succeeded, t.failed, t.stopped, t.started_at, t.ended_at, t.reason, t.task_key
       FROM tasks t JOIN clusters c ON c.cluster_key = t.cluster_key
       WHERE t.job_key = :job_key ORDER BY t.position"""
PARENTS_OF_JOB = """
SELECT e.child_key, p.name FROM tasks p JOIN edges e ON e.parent_key = p.task_key
       WHERE p.job_key = :job_key ORDER BY p.position"""
_JOB_COLUMNS = (
    t.jobs.c.job_id,
    t.jobs.c.name,
    t.jobs.c.description,
    t.jobs.c.state,
    t.jobs.c.reason,
    t.jobs.c.generation,
    t.jobs.c.priority,
    t.jobs.c.fail_fast,
    t.jobs.c.submitted_at,
    t.jobs.c.started_at,
    t.jobs.c.ended_at,
    t.jobs.c.job_key,
)
_GONE = (NodeState.GONE, NodeState.DELETED)


class SqlListings:
    """The listings of `stores.queries.Queries`, on a SQLAlchemy connection."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def list_jobs(
        self,
        tenant: TenantId,
        *,
        states: Collection[JobState],
        name_contains: str,
        limit: int,
        before: int | None,
    ) -> tuple[list[JobStatus], int | None]:
        query = select(*_JOB_COLUMNS).where(t.jobs.c.tenant == tenant, t.jobs.c.deleted_at.is_(None))
        if states:
            query = query.where(t.jobs.c.state.in_(states))
        if name_contains:
            query = query.where(t.jobs.c.name.contains(name_contains, autoescape=True))
        if before is not None:
            query = query.where(t.jobs.c.job_key < before)
        rows = self._db.execute(query.order_by(t.jobs.c.job_key.desc()).limit(limit + 1)).all()
        more = rows[limit - 1][11] if len(rows) > limit else None
        return [job_status(row, ()) for row in rows[:limit]], more

    def list_instances(
        self,
        job_id: JobId,
        *,
        tenant: TenantId,
        task: str,
        index: int | None,
        limit: int,
        after: tuple[int, int] | None,
        all_attempts: bool,
    ) -> tuple[list[InstanceStatus], tuple[int, int] | None] | None:
        keys = self._task_keys(job_id, tenant=tenant, task=task)
        if keys is None:
            return None
        instances = t.instances
        query = select(
            instances.c.task_key,
            instances.c.idx,
            instances.c.state,
            instances.c.user_failures,
            instances.c.infra_failures,
            instances.c.attempt,
        ).where(instances.c.task_key.in_(keys))
        if index is not None:
            query = query.where(instances.c.idx == index)
        if after is not None:
            key, idx = after
            query = query.where(
                or_(
                    instances.c.task_key > key,
                    and_(instances.c.task_key == key, instances.c.idx > idx),
                )
            )
        rows = self._db.execute(query.order_by(instances.c.task_key, instances.c.idx).limit(limit + 1)).all()
        found = [self._instance(row, keys, all_attempts=all_attempts) for row in rows[:limit]]
        return found, ((rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None)

    def _task_keys(self, job_id: JobId, *, tenant: TenantId, task: str) -> dict[int, TaskName] | None:
        query = (
            select(t.tasks.c.task_key, t.tasks.c.name)
            .join(t.jobs, t.jobs.c.job_key == t.tasks.c.job_key)
            .where(t.jobs.c.job_id == job_id, t.jobs.c.tenant == tenant, t.jobs.c.deleted_at.is_(None))
        )
        if task:
            query = query.where(t.tasks.c.name == task)
        keys = {row[0]: TaskName(row[1]) for row in self._db.execute(query)}
        return keys or None

    def _instance(self, row: Any, keys: dict[int, TaskName], *, all_attempts: bool) -> InstanceStatus:
        attempts = t.attempts
        query = (
            select(attempts, t.nodes.c.node_id, t.nodes.c.name.label("node_name"))
            .outerjoin(t.nodes, t.nodes.c.node_key == attempts.c.node_key)
            .where(attempts.c.task_key == row[0], attempts.c.idx == row[1])
            .order_by(attempts.c.attempt)
        )
        if not all_attempts:
            query = query.where(attempts.c.attempt == row[5])
        return InstanceStatus(
            task=keys[row[0]],
            index=row[1],
            state=InstanceState(row[2]),
            user_failures=row[3],
            infra_failures=row[4],
            attempts=tuple(_attempt_status(found) for found in self._db.execute(query)),
        )

    def waiting_tasks(self, job_id: JobId, *, tenant: TenantId) -> list[WaitingTask]:
        tasks, nodes = t.tasks.c, t.nodes.c
        query = (
            select(
                tasks.name,
                t.clusters.c.name.label("cluster"),
                tasks.cluster_key,
                *(tasks.cpu, tasks.memory_bytes, tasks.slots, tasks.gpus),
            )
            .join(t.jobs, t.jobs.c.job_key == tasks.job_key)
            .join(t.clusters, t.clusters.c.cluster_key == tasks.cluster_key)
            .where(t.jobs.c.job_id == job_id, t.jobs.c.tenant == tenant)
            .where(tasks.has_work == 1, tasks.active == 0)
            .order_by(tasks.position)
        )
        rows = self._db.execute(query).all()
        sizes: dict[int, list[NodeCapacity]] = {row.cluster_key: [] for row in rows}
        of_nodes = (
            select(nodes.cluster_key, nodes.cpu, nodes.memory_bytes, nodes.slots, nodes.gpus)
            .where(nodes.cluster_key.in_(sizes), nodes.state == NodeState.READY)
            .distinct()
        )
        for key, cpu, memory_bytes, slots, gpus in self._db.execute(of_nodes):
            sizes[key].append(NodeCapacity(cpu=cpu, memory_bytes=memory_bytes, slots=slots, gpus=gpus))
        return [
            WaitingTask(
                name=TaskName(row.name),
                cluster=ClusterName(row.cluster),
                needs=Resources(cpu=row.cpu, memory_bytes=row.memory_bytes, slots=row.slots, gpus=row.gpus),
                sizes=tuple(sizes[row.cluster_key]),
            )
            for row in rows
        ]

    def list_clusters(self, tenant: TenantId) -> list[ClusterStatus]:
        query: Select[Any] = (
            select(
                t.clusters.c.name,
                t.clusters.c.description,
                func.count(t.nodes.c.node_key),
                func.coalesce(func.sum(t.nodes.c.slots), 0),
                t.clusters.c.created_at,
            )
            .outerjoin(
                t.nodes,
                and_(
                    t.nodes.c.cluster_key == t.clusters.c.cluster_key,
                    t.nodes.c.state == NodeState.READY,
                ),
            )
            .where(t.clusters.c.tenant == tenant, ~t.clusters.c.name.contains("/"))
            .group_by(t.clusters.c.cluster_key)
            .order_by(t.clusters.c.name)
        )
        return [
            ClusterStatus(
                name=ClusterName(row[0]),
                description=row[1],
                nodes_ready=row[2],
                slots=int(row[3]),  # a sum is a decimal number on PostgreSQL
                created_at=from_us(row[4]),
            )
            for row in self._db.execute(query)
        ]

    def list_nodes(
        self, tenant: TenantId, *, cluster: str, include_gone: bool, node_id: str
    ) -> list[NodeStatus]:
        live = (
            select(func.count())
            .where(t.attempts.c.node_key == t.nodes.c.node_key, t.attempts.c.ended_at.is_(None))
            .scalar_subquery()
        )
        query = (
            select(t.nodes, t.clusters.c.name.label("cluster"), live.label("live"))
            .join(t.clusters, t.clusters.c.cluster_key == t.nodes.c.cluster_key)
            .where(t.nodes.c.tenant == tenant)
            .order_by(t.nodes.c.name, t.nodes.c.node_key)
        )
        if cluster:
            query = query.where(t.clusters.c.name == cluster)
        if node_id:
            query = query.where(t.nodes.c.node_id == node_id)
        elif not include_gone:
            query = query.where(t.nodes.c.state.not_in(_GONE))
        return [_node_status(row) for row in self._db.execute(query)]


# Rows are untyped on purpose below: their columns are those of the queries above.


def job_status(row: Any, tasks: tuple[TaskStatus, ...]) -> JobStatus:
    return JobStatus(
        job_id=JobId(row[0]),
        name=row[1],
        description=row[2],
        state=JobState(row[3]),
        reason=row[4],
        generation=row[5],
        priority=row[6],
        fail_on_instance_failure=bool(row[7]),
        submitted_at=from_us(row[8]),
        started_at=from_us_or_none(row[9]),
        ended_at=from_us_or_none(row[10]),
        tasks=tasks,
    )


def task_status(row: Any, after: tuple[TaskName, ...]) -> TaskStatus:
    state = TaskState(row[1])
    count, next_index, again, active, retry_wait, succeeded, failed, stopped = row[3:11]
    unclaimed = count - next_index
    return TaskStatus(
        name=TaskName(row[0]),
        state=state,
        after=after,
        cluster=ClusterName(row[2]),
        instances=count,
        counts=InstanceCounts(
            waiting=unclaimed + again if state is TaskState.WAITING else 0,
            ready=unclaimed + again if state in (TaskState.READY, TaskState.RUNNING) else 0,
            active=active,
            retry_wait=retry_wait,
            succeeded=succeeded,
            failed=failed,
            # What was never claimed has no record and ends with its task.
            stopped=stopped + (unclaimed if state.is_terminal or state is TaskState.STOPPING else 0),
        ),
        started_at=from_us_or_none(row[11]),
        ended_at=from_us_or_none(row[12]),
        reason=row[13],
    )


def _attempt_status(row: Any) -> AttemptStatus:
    return AttemptStatus(
        attempt=row.attempt,
        fence=row.fence,
        state=AttemptState(row.state),
        node_id=NodeId(row.node_id or ""),
        node_name=row.node_name or "",
        failure=None if row.failure is None else FailureKind(row.failure),
        reason=row.reason or "",
        exit_code=row.exit_code,
        exit_signal=row.exit_signal,
        leased_at=from_us(row.leased_at),
        started_at=from_us_or_none(row.started_at),
        ended_at=from_us_or_none(row.ended_at),
        ran_for=_duration(row.ran_for_us),
        user_cpu=_duration(row.user_cpu_us),
        system_cpu=_duration(row.system_cpu_us),
        peak_memory_bytes=row.peak_memory_bytes or 0,
        stdout_bytes=row.stdout_end,
        stderr_bytes=row.stderr_end,
        image_digest=row.image_digest or "",
    )


def _node_status(row: Any) -> NodeStatus:
    return NodeStatus(
        node_id=NodeId(row.node_id),
        name=row.name,
        cluster=ClusterName(row.cluster),
        state=NodeState(row.state),
        slots=row.slots,
        live_attempts=row.live,
        cpu=row.cpu,
        memory_bytes=row.memory_bytes,
        agent_version=row.agent_version,
        joined_at=from_us(row.joined_at),
        last_seen_at=from_us_or_none(row.last_seen_at),
        containment=row.containment,
        reason=row.reason,
        gpus=row.gpus,
    )


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)
