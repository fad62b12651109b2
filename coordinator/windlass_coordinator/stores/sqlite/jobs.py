"""Jobs, tasks and the graph on SQLite: submitted, opened, ended."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from windlass_coordinator.core.records import ClusterKey, Fact, JobKey, JobView, TaskView
from windlass_coordinator.core.task_graph import count_blockers
from windlass_coordinator.stores.base import NewJob
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

_ADD_TASK = """
INSERT INTO tasks (job_key, name, position, state, cluster_key, priority, has_work, instance_count,
  blocked_by, max_retries, cpu, memory_bytes, slots, gpus, spec)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_CHILDREN = """
SELECT parent_key, child_key FROM json_each(?1) k JOIN edges ON parent_key = k.value"""

_UNBLOCK = """
UPDATE tasks SET blocked_by = blocked_by - ?2,
  state = CASE WHEN state = 'WAITING' AND blocked_by = ?2 THEN 'READY' ELSE state END,
  has_work = (state = 'WAITING' AND blocked_by = ?2 AND (next_index < instance_count OR ready_again > 0))
WHERE task_key = ?1
"""


class SqliteJobs:
    """The part of a transaction that knows jobs."""

    _db: sqlite3.Connection

    def find_submission(self, tenant: TenantId, idempotency_key: str) -> tuple[str, JobId] | None:
        row = self._db.execute(
            "SELECT request_digest, job_id FROM submissions WHERE tenant = ? AND idempotency_key = ?",
            (tenant, idempotency_key),
        ).fetchone()
        return None if row is None else (row[0], JobId(row[1]))

    def add_submission(
        self, tenant: TenantId, idempotency_key: str, *, request_digest: str, job_id: JobId
    ) -> None:
        self._db.execute(
            "INSERT INTO submissions (tenant, idempotency_key, request_digest, job_id) VALUES (?, ?, ?, ?)",
            (tenant, idempotency_key, request_digest, job_id),
        )

    def add_job(self, job: NewJob, *, now: datetime) -> tuple[JobKey, set[ClusterKey]]:
        spec = job.spec
        row = self._db.execute(
            """INSERT INTO jobs (job_id, tenant, name, description, state, fail_fast, priority, tasks_open,
                 submitted_at) VALUES (?, ?, ?, ?, 'WAITING', ?, ?, ?, ?) RETURNING job_key""",
            (
                job.job_id,
                job.tenant,
                spec.name,
                spec.description,
                spec.fail_on_instance_failure,
                spec.priority,
                len(spec.tasks),
                to_us(now),
            ),
        ).fetchone()
        job_key = JobKey(row[0])
        blockers = count_blockers(spec.tasks)
        self._db.executemany(
            _ADD_TASK,
            [
                task_row(task, job_key, position, job, blocked_by=blockers[task.name])
                for position, task in enumerate(spec.tasks)
            ],
        )
        self._add_edges(job_key, spec.tasks)
        clusters = {job.clusters[task.cluster] for task in spec.tasks if not blockers[task.name]}
        return job_key, clusters

    def _add_edges(self, job_key: JobKey, tasks: Sequence[TaskSpec]) -> None:
        if not any(task.after for task in tasks):
            return
        rows = self._db.execute("SELECT name, task_key FROM tasks WHERE job_key = ?", (job_key,))
        keys = dict(rows.fetchall())
        self._db.executemany(
            "INSERT INTO edges (parent_key, child_key) VALUES (?, ?)",
            [(keys[parent], keys[task.name]) for task in tasks for parent in set(task.after)],
        )

    def job_view(self, job_id: JobId, *, tenant: TenantId) -> JobView | None:
        row = self._db.execute(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE job_id = ? AND tenant = ? AND deleted_at IS NULL",
            (job_id, tenant),
        ).fetchone()
        return None if row is None else job_view_of(row)

    def job_views(self, keys: Collection[JobKey]) -> dict[JobKey, JobView]:
        select = f"SELECT {JOB_COLUMNS} FROM jobs WHERE job_key = ?"
        rows = [self._db.execute(select, (key,)).fetchone() for key in keys]
        return {JobKey(row[0]): job_view_of(row) for row in rows}

    def job_task_views(self, job_key: JobKey) -> list[TaskView]:
        rows = self._db.execute(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE job_key = ? ORDER BY position", (job_key,)
        )
        return [task_view(row) for row in rows]

    def first_task_by_state(self, job_key: JobKey) -> dict[TaskState, TaskName]:
        # A bare column next to min() is that of the row with the minimum (a promise of SQLite's).
        rows = self._db.execute(
            "SELECT state, name, min(position) FROM tasks WHERE job_key = ? GROUP BY state", (job_key,)
        )
        return {TaskState(row[0]): TaskName(row[1]) for row in rows}

    def job_spec(self, job_id: JobId, *, tenant: TenantId) -> JobSpec | None:
        row = self._db.execute(
            "SELECT job_key, name, description, priority, fail_fast FROM jobs "
            "WHERE job_id = ? AND tenant = ? AND deleted_at IS NULL",
            (job_id, tenant),
        ).fetchone()
        if row is None:
            return None
        specs = self._db.execute("SELECT spec FROM tasks WHERE job_key = ? ORDER BY position", (row[0],))
        return JobSpec(
            name=row[1],
            tasks=tuple(task_from_json(spec) for (spec,) in specs),
            description=row[2],
            priority=row[3],
            fail_on_instance_failure=bool(row[4]),
        )

    def children_of(self, keys: Collection[TaskKey]) -> dict[TaskKey, list[TaskKey]]:
        children: dict[TaskKey, list[TaskKey]] = {}
        for parent, child in self._db.execute(_CHILDREN, (json.dumps(list(keys)),)):
            children.setdefault(parent, []).append(child)
        return children

    def job_edges(self, job_key: JobKey) -> dict[TaskKey, list[TaskKey]]:
        rows = self._db.execute(
            "SELECT e.parent_key, e.child_key FROM tasks t JOIN edges e ON e.parent_key = t.task_key "
            "WHERE t.job_key = ?",
            (job_key,),
        )
        edges: dict[TaskKey, list[TaskKey]] = {}
        for parent, child in rows:
            edges.setdefault(parent, []).append(child)
        return edges

    def unblock(self, keys: Collection[TaskKey], *, by: Mapping[TaskKey, int]) -> list[TaskView]:
        self._db.executemany(_UNBLOCK, [(key, by[key]) for key in keys])
        select = f"SELECT {TASK_COLUMNS} FROM tasks WHERE task_key = ? AND state = 'READY'"
        rows = [self._db.execute(select, (key,)).fetchone() for key in keys]
        return [task_view(row) for row in rows if row is not None]

    def set_task_states(
        self, keys: Collection[TaskKey], state: TaskState, *, reason: str, now: datetime
    ) -> None:
        # Instances of an earlier generation, which a restart has made ready again, end with their task.
        self._db.executemany(
            "UPDATE instances SET state = 'STOPPED', due_at = NULL "
            "WHERE task_key = ? AND state IN ('READY', 'RETRY_WAIT')",
            [(key,) for key in keys],
        )
        self._db.executemany("DELETE FROM ready_again WHERE task_key = ?", [(key,) for key in keys])
        self._db.executemany(
            """UPDATE tasks SET state = ?, reason = ?, has_work = 0, ended_at = ?,
                 stopped = stopped + ready_again + retry_wait, ready_again = 0, retry_wait = 0
               WHERE task_key = ?""",
            [(state, reason, to_us(now), key) for key in keys],
        )

    def open_tasks(self, changes: Mapping[JobKey, int]) -> None:
        self._db.executemany(
            "UPDATE jobs SET tasks_open = tasks_open + ? WHERE job_key = ?",
            [(change, key) for key, change in changes.items()],
        )

    def start_jobs(self, keys: Collection[JobKey], *, now: datetime) -> None:
        self._db.executemany(
            "UPDATE jobs SET state = 'RUNNING', started_at = coalesce(started_at, ?) "
            "WHERE job_key = ? AND state = 'WAITING'",
            [(to_us(now), key) for key in keys],
        )

    def end_job(self, job_key: JobKey, state: JobState, *, reason: str, now: datetime) -> None:
        self._db.execute(
            "UPDATE jobs SET state = ?, stop_as = NULL, ended_at = ?, "
            "reason = CASE WHEN ? = '' THEN reason ELSE ? END WHERE job_key = ?",
            (state, to_us(now), reason, reason, job_key),
        )

    def set_priority(self, job_key: JobKey, priority: int) -> None:
        self._db.execute("UPDATE jobs SET priority = ? WHERE job_key = ?", (priority, job_key))
        self._db.execute("UPDATE tasks SET priority = ? WHERE job_key = ?", (priority, job_key))

    def delete_job(self, job_key: JobKey, *, now: datetime) -> None:
        self._db.execute("UPDATE jobs SET deleted_at = ? WHERE job_key = ?", (to_us(now), job_key))

    def mark_delete_when_done(self, job_key: JobKey) -> None:
        self._db.execute("UPDATE jobs SET delete_when_done = 1 WHERE job_key = ?", (job_key,))

    def add_facts(self, facts: Sequence[Fact], *, now: datetime) -> None:
        at = to_us(now)
        self._db.executemany(
            "INSERT INTO facts (at, tenant, kind, job_key, task_key, node_key, payload) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    at,
                    fact.tenant,
                    fact.kind,
                    fact.job_key,
                    fact.task_key,
                    fact.node_key,
                    to_json(fact.payload) if fact.payload else "",
                )
                for fact in facts
            ],
        )
