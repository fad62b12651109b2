"""What is asked about an attempt's output, on PostgreSQL."""

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.rows import OUTPUT_IS_GIVEN_UP, attempt_key
from windlass_proto.model.ids import AttemptRef, JobId, NodeKey, TaskKey, TenantId

_OF_READER = f"""
SELECT a.task_key, a.attempt, a.ended_at IS NOT NULL, a.stdout_end, a.stderr_end,
  {OUTPUT_IS_GIVEN_UP}, a.state = 'LOST'
FROM jobs j JOIN tasks t ON t.job_key = j.job_key AND t.name = $1
JOIN attempts a ON a.task_key = t.task_key AND a.idx = $2
JOIN nodes n ON n.node_key = a.node_key
WHERE j.job_id = $3 AND j.tenant = $4 AND j.deleted_at IS NULL AND ($5 = 0 OR a.attempt = $5)
ORDER BY a.attempt DESC LIMIT 1"""

_OF_ATTEMPT = """
SELECT j.job_id, a.ended_at IS NOT NULL, a.stdout_end, a.stderr_end
FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN jobs j ON j.job_key = t.job_key
WHERE a.task_key = $1 AND a.idx = $2 AND a.attempt = $3 AND a.fence = $4
  AND a.state <> 'RELEASED' AND (a.state <> 'LOST' OR a.stdout_end IS NOT NULL) AND j.deleted_at IS NULL"""


class PostgresLogs(PostgresLocks):
    """The part of a transaction that knows whose output there is, and how much."""

    def log_facts(
        self, job_id: JobId, *, tenant: TenantId, task: str, index: int, attempt: int
    ) -> LogFacts | None:
        row = self._row(_OF_READER, task, index, job_id, tenant, attempt)
        if row is None:
            return None
        return LogFacts(
            job_id=job_id,
            task_key=TaskKey(row[0]),
            index=index,
            attempt=row[1],
            ended=row[2],
            stdout_end=row[3],
            stderr_end=row[4],
            is_given_up=row[5],
            is_lost=row[6],
        )

    def attempt_log_facts(self, ref: AttemptRef) -> LogFacts | None:
        row = self._row(_OF_ATTEMPT, *attempt_key(ref))
        if row is None:
            return None
        return LogFacts(
            job_id=JobId(row[0]),
            task_key=ref.task_key,
            index=ref.index,
            attempt=ref.attempt,
            ended=row[1],
            stdout_end=row[2],
            stderr_end=row[3],
        )

    def log_owner(self, node_key: NodeKey, ref: AttemptRef) -> JobId | None:
        row = self._row(_OF_ATTEMPT + " AND a.node_key = $5", *attempt_key(ref), node_key)
        return None if row is None else JobId(row[0])
