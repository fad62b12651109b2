"""What is asked about an attempt's output, on SQLite."""

import sqlite3

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.stores.sql.rows import OUTPUT_IS_GIVEN_UP, attempt_key
from windlass_proto.model.ids import AttemptRef, JobId, NodeKey, TaskKey, TenantId


class SqliteLogs:
    """The part of a transaction that knows whose output there is, and how much."""

    _db: sqlite3.Connection

    def log_facts(
        self, job_id: JobId, *, tenant: TenantId, task: str, index: int, attempt: int
    ) -> LogFacts | None:
        row = self._db.execute(
            f"""SELECT a.task_key, a.attempt, a.ended_at IS NOT NULL, a.stdout_end, a.stderr_end,
                 {OUTPUT_IS_GIVEN_UP}, a.state = 'LOST'
               FROM jobs j JOIN tasks t ON t.job_key = j.job_key AND t.name = ?
               JOIN attempts a ON a.task_key = t.task_key AND a.idx = ?
               JOIN nodes n ON n.node_key = a.node_key
               WHERE j.job_id = ? AND j.tenant = ? AND j.deleted_at IS NULL AND (? = 0 OR a.attempt = ?)
               ORDER BY a.attempt DESC LIMIT 1""",
            (task, index, job_id, tenant, attempt, attempt),
        ).fetchone()
        if row is None:
            return None
        return LogFacts(
            job_id=job_id,
            task_key=TaskKey(row[0]),
            index=index,
            attempt=row[1],
            ended=bool(row[2]),
            stdout_end=row[3],
            stderr_end=row[4],
            is_given_up=bool(row[5]),
            is_lost=bool(row[6]),
        )

    def attempt_log_facts(self, ref: AttemptRef) -> LogFacts | None:
        row = self._db.execute(
            """SELECT j.job_id, a.ended_at IS NOT NULL, a.stdout_end, a.stderr_end
               FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN jobs j ON j.job_key = t.job_key
               WHERE a.task_key = ? AND a.idx = ? AND a.attempt = ? AND a.fence = ?
                 AND a.state <> 'RELEASED' AND (a.state <> 'LOST' OR a.stdout_end IS NOT NULL)
                 AND j.deleted_at IS NULL""",
            attempt_key(ref),
        ).fetchone()
        if row is None:
            return None
        return LogFacts(
            job_id=JobId(row[0]),
            task_key=ref.task_key,
            index=ref.index,
            attempt=ref.attempt,
            ended=bool(row[1]),
            stdout_end=row[2],
            stderr_end=row[3],
        )

    def log_owner(self, node_key: NodeKey, ref: AttemptRef) -> JobId | None:
        row = self._db.execute(
            """SELECT j.job_id FROM attempts a JOIN tasks t ON t.task_key = a.task_key
               JOIN jobs j ON j.job_key = t.job_key
               WHERE a.task_key = ? AND a.idx = ? AND a.attempt = ? AND a.fence = ? AND a.node_key = ?
                 AND a.state <> 'RELEASED' AND (a.state <> 'LOST' OR a.stdout_end IS NOT NULL)
                 AND j.deleted_at IS NULL""",
            (*attempt_key(ref), node_key),
        ).fetchone()
        return None if row is None else JobId(row[0])
