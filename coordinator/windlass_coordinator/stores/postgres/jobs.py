"""Jobs, tasks and the graph on PostgreSQL: submitted, opened, ended."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from windlass_coordinator.core.records import ClusterKey, Fact, JobKey, JobView, TaskView
from windlass_coordinator.core.task_graph import count_blockers
from windlass_coordinator.stores.base import NewJob
from windlass_coordinator.stores.postgres.arrays import ints, texts
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.rows import (
    JOB_COLUMNS,
    TASK_COLUMNS,
    job_view_of,
    task_row,
    task_view,
    to_json,
)
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import JobId, TaskKey, TaskName, TenantId
from windlass_proto.model.specs import JobSpec, TaskSpec, task_from_json
from windlass_proto.model.states import JobState, TaskState

_ADD_JOB = """
INSERT INTO jobs (job_id, tenant, name, description, state, fail_fast, priority, tasks_open, submitted_at)
VALUES ($1, $2, $3, $4, 'WAITING', $5, $6, $7, $8) RETURNING job_key"""

_ADD_TASK = """
INSERT INTO tasks (job_key, name, position, state, cluster_key, priority, has_work, instance_count,
  blocked_by, max_retries, cpu, memory_bytes, slots, gpus, spec)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"""

_JOB = f"SELECT {JOB_COLUMNS} FROM jobs WHERE job_id = $1 AND tenant = $2 AND deleted_at IS NULL"

_JOBS = f"SELECT {JOB_COLUMNS} FROM jobs WHERE job_key = ANY($1::bigint[]) ORDER BY job_key"

_UNBLOCK = f"""
UPDATE tasks SET blocked_by = blocked_by - r.gone,
  state = CASE WHEN state = 'WAITING' AND blocked_by = r.gone THEN 'READY' ELSE state END,
  has_work = (state = 'WAITING' AND blocked_by = r.gone
              AND (next_index < instance_count OR ready_again > 0))::int
FROM unnest($1::bigint[], $2::bigint[]) r(key, gone) WHERE task_key = r.key
RETURNING {TASK_COLUMNS}"""

_ADD_FACTS = """
INSERT INTO facts (at, tenant, kind, job_key, task_key, node_key, payload)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[])"""


class PostgresJobs(PostgresLocks):
    """The part of a transaction that knows jobs."""

    def find_submission(self, tenant: TenantId, idempotency_key: str) -> tuple[str, JobId] | None:
        row = self._row(
            "SELECT request_digest, job_id FROM submissions WHERE tenant = $1 AND idempotency_key = $2",
            tenant,
            idempotency_key,
        )
        return None if row is None else (row[0], JobId(row[1]))

    def add_submission(
        self, tenant: TenantId, idempotency_key: str, *, request_digest: str, job_id: JobId
    ) -> None:
        self._change(
            "INSERT INTO submissions (tenant, idempotency_key, request_digest, job_id) "
            "VALUES ($1, $2, $3, $4)",
            tenant,
            idempotency_key,
            request_digest,
            job_id,
        )

    def add_job(self, job: NewJob, *, now: datetime) -> tuple[JobKey, set[ClusterKey]]:
        spec = job.spec
        ((key,),) = self._change_returning(
            _ADD_JOB,
            job.job_id,
            job.tenant,
            spec.name,
            spec.description,
            int(spec.fail_on_instance_failure),
            spec.priority,
            len(spec.tasks),
            to_us(now),
        )
        job_key = JobKey(key)
        self._jobs.add(job_key)
        blockers = count_blockers(spec.tasks)
        for position, task in enumerate(spec.tasks):
            row = task_row(task, job_key, position, job, blocked_by=blockers[task.name])
            self._change(_ADD_TASK, *_storable(row))
        self._add_edges(job_key, spec.tasks)
        clusters = {job.clusters[task.cluster] for task in spec.tasks if not blockers[task.name]}
        return job_key, clusters

    def _add_edges(self, job_key: JobKey, tasks: Sequence[TaskSpec]) -> None:
        if not any(task.after for task in tasks):
            return
        keys = dict(self._rows("SELECT name, task_key FROM tasks WHERE job_key = $1", job_key))
        edges = [(keys[parent], keys[task.name]) for task in tasks for parent in set(task.after)]
        self._change(
            "INSERT INTO edges (parent_key, child_key) SELECT * FROM unnest($1::bigint[], $2::bigint[])",
            *[ints(column) for column in zip(*edges, strict=True)],
        )

    def job_view(self, job_id: JobId, *, tenant: TenantId) -> JobView | None:
        row = self._row(_JOB, job_id, tenant)
        if row is None:
            return None
        # Whoever looks at a job in a verb is going to change it.
        if row[0] not in self._jobs:
            self._lock_jobs([row[0]])
            row = self._row(_JOB, job_id, tenant)
        return None if row is None else job_view_of(row)

    def job_views(self, keys: Collection[JobKey]) -> dict[JobKey, JobView]:
        self._lock_jobs(keys)
        return {JobKey(row[0]): job_view_of(row) for row in self._rows_beside("jobs", _JOBS, ints(keys))}

    def job_task_views(self, job_key: JobKey) -> list[TaskView]:
        rows = self._rows(f"SELECT {TASK_COLUMNS} FROM tasks WHERE job_key = $1 ORDER BY position", job_key)
        return [task_view(row) for row in rows]

    def first_task_by_state(self, job_key: JobKey) -> dict[TaskState, TaskName]:
        rows = self._rows(
            "SELECT DISTINCT ON (state) state, name FROM tasks WHERE job_key = $1 ORDER BY state, position",
            job_key,
        )
        return {TaskState(row[0]): TaskName(row[1]) for row in rows}

    def job_spec(self, job_id: JobId, *, tenant: TenantId) -> JobSpec | None:
        row = self._row(
            "SELECT job_key, name, description, priority, fail_fast FROM jobs "
            "WHERE job_id = $1 AND tenant = $2 AND deleted_at IS NULL",
            job_id,
            tenant,
        )
        if row is None:
            return None
        specs = self._rows("SELECT spec FROM tasks WHERE job_key = $1 ORDER BY position", row[0])
        return JobSpec(
            name=row[1],
            tasks=tuple(task_from_json(spec) for (spec,) in specs),
            description=row[2],
            priority=row[3],
            fail_on_instance_failure=bool(row[4]),
        )

    def children_of(self, keys: Collection[TaskKey]) -> dict[TaskKey, list[TaskKey]]:
        children: dict[TaskKey, list[TaskKey]] = {}
        if keys:
            query = "SELECT parent_key, child_key FROM edges WHERE parent_key = ANY($1::bigint[])"
            for parent, child in self._rows(query, ints(keys)):
                children.setdefault(parent, []).append(child)
        return children

    def job_edges(self, job_key: JobKey) -> dict[TaskKey, list[TaskKey]]:
        rows = self._rows(
            "SELECT e.parent_key, e.child_key FROM tasks t JOIN edges e ON e.parent_key = t.task_key "
            "WHERE t.job_key = $1",
            job_key,
        )
        edges: dict[TaskKey, list[TaskKey]] = {}
        for parent, child in rows:
            edges.setdefault(parent, []).append(child)
        return edges

    def unblock(self, keys: Collection[TaskKey], *, by: Mapping[TaskKey, int]) -> list[TaskView]:
        rows = self._change_returning(_UNBLOCK, ints(keys), ints(by[key] for key in keys))
        return [view for view in map(task_view, rows) if view.state is TaskState.READY]

    def set_task_states(
        self, keys: Collection[TaskKey], state: TaskState, *, reason: str, now: datetime
    ) -> None:
        if not keys:
            return
        # Instances of an earlier generation, which a restart has made ready again, end with their task.
        self._change(
            "UPDATE instances SET state = 'STOPPED', due_at = NULL "
            "WHERE task_key = ANY($1::bigint[]) AND state IN ('READY', 'RETRY_WAIT')",
            ints(keys),
        )
        self._change("DELETE FROM ready_again WHERE task_key = ANY($1::bigint[])", ints(keys))
        self._change(
            """UPDATE tasks SET state = $1, reason = $2, has_work = 0, ended_at = $3,
                 stopped = stopped + ready_again + retry_wait, ready_again = 0, retry_wait = 0
               WHERE task_key = ANY($4::bigint[])""",
            state,
            reason,
            to_us(now),
            ints(keys),
        )

    def open_tasks(self, changes: Mapping[JobKey, int]) -> None:
        self._change(
            "UPDATE jobs SET tasks_open = tasks_open + r.change "
            "FROM unnest($1::bigint[], $2::bigint[]) r(key, change) WHERE job_key = r.key",
            ints(changes.keys()),
            ints(changes.values()),
        )

    def start_jobs(self, keys: Collection[JobKey], *, now: datetime) -> None:
        self._change(
            "UPDATE jobs SET state = 'RUNNING', started_at = coalesce(started_at, $1) "
            "WHERE job_key = ANY($2::bigint[]) AND state = 'WAITING'",
            to_us(now),
            ints(keys),
        )

    def end_job(self, job_key: JobKey, state: JobState, *, reason: str, now: datetime) -> None:
        self._change(
            "UPDATE jobs SET state = $1, stop_as = NULL, ended_at = $2, "
            "reason = CASE WHEN $3::text = '' THEN reason ELSE $3::text END WHERE job_key = $4",
            state,
            to_us(now),
            reason,
            job_key,
        )

    def set_priority(self, job_key: JobKey, priority: int) -> None:
        self._change("UPDATE jobs SET priority = $1 WHERE job_key = $2", priority, job_key)
        self._change("UPDATE tasks SET priority = $1 WHERE job_key = $2", priority, job_key)

    def delete_job(self, job_key: JobKey, *, now: datetime) -> None:
        self._lock_jobs([job_key])
        # Retention looked at it without a lock: its user may have restarted it since.
        self._change(
            "UPDATE jobs SET deleted_at = $1 WHERE job_key = $2 "
            "AND state IN ('SUCCEEDED', 'FAILED', 'STOPPED')",
            to_us(now),
            job_key,
        )

    def mark_delete_when_done(self, job_key: JobKey) -> None:
        self._change("UPDATE jobs SET delete_when_done = 1 WHERE job_key = $1", job_key)

    def add_facts(self, facts: Sequence[Fact], *, now: datetime) -> None:
        if not facts:
            return
        self._change(
            _ADD_FACTS,
            to_us(now),
            texts(fact.tenant for fact in facts),
            texts(fact.kind for fact in facts),
            ints(fact.job_key for fact in facts),
            ints(fact.task_key for fact in facts),
            ints(fact.node_key for fact in facts),
            texts(to_json(fact.payload) if fact.payload else "" for fact in facts),
        )


def _storable(row: tuple[object, ...]) -> tuple[object, ...]:
    """Yes and no are numbers in the tables, as SQLite has nothing else."""
    return tuple(int(value) if isinstance(value, bool) else value for value in row)
