"""What users look at, on PostgreSQL.

The status of one job is read at each of its changes while somebody watches, so it goes straight to the
driver; the listings go through the library that they share with the other databases."""

from collections.abc import Collection
from typing import Any

from psycopg import Connection as DriverConnection
from sqlalchemy import Connection

from windlass_coordinator.core.records import WaitingTask
from windlass_coordinator.stores.sql.listings import (
    PARENTS_OF_JOB,
    TASKS_OF_JOB,
    SqlListings,
    job_status,
    task_status,
)
from windlass_proto.model.ids import JobId, TaskName, TenantId
from windlass_proto.model.states import JobState
from windlass_proto.model.status import ClusterStatus, InstanceStatus, JobStatus, NodeStatus, TaskStatus

_JOB = """
SELECT job_id, name, description, state, reason, generation, priority, fail_fast, submitted_at, started_at,
       ended_at, job_key
FROM jobs WHERE job_id = %s AND tenant = %s AND deleted_at IS NULL"""

_TASKS = TASKS_OF_JOB.replace(":job_key", "%s")
_PARENTS = PARENTS_OF_JOB.replace(":job_key", "%s")


class PostgresQueries:
    """Implements `stores.queries.Queries` on a connection that sees one snapshot."""

    def __init__(self, connection: Connection, driver: DriverConnection[Any]) -> None:
        self._listings = SqlListings(connection)
        self._db = driver

    def job_status(self, job_id: JobId, *, tenant: TenantId) -> JobStatus | None:
        row = self._db.execute(_JOB, (job_id, tenant)).fetchone()
        return None if row is None else job_status(row, self._tasks(row[11]))

    def _tasks(self, job_key: int) -> tuple[TaskStatus, ...]:
        after: dict[int, list[TaskName]] = {}
        for child, parent in self._db.execute(_PARENTS, (job_key,)):
            after.setdefault(child, []).append(TaskName(parent))
        rows = self._db.execute(_TASKS, (job_key,))
        return tuple(task_status(row, tuple(after.get(row[14], ()))) for row in rows)

    def waiting_tasks(self, job_id: JobId, *, tenant: TenantId) -> list[WaitingTask]:
        return self._listings.waiting_tasks(job_id, tenant=tenant)

    def list_jobs(
        self,
        tenant: TenantId,
        *,
        states: Collection[JobState],
        name_contains: str,
        limit: int,
        before: int | None,
    ) -> tuple[list[JobStatus], int | None]:
        return self._listings.list_jobs(
            tenant, states=states, name_contains=name_contains, limit=limit, before=before
        )

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
        return self._listings.list_instances(
            job_id, tenant=tenant, task=task, index=index, limit=limit, after=after, all_attempts=all_attempts
        )

    def list_clusters(self, tenant: TenantId) -> list[ClusterStatus]:
        return self._listings.list_clusters(tenant)

    def list_nodes(
        self, tenant: TenantId, *, cluster: str, include_gone: bool, node_id: str
    ) -> list[NodeStatus]:
        return self._listings.list_nodes(tenant, cluster=cluster, include_gone=include_gone, node_id=node_id)
