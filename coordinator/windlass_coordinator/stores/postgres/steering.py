"""Stop and restart on PostgreSQL: many rows change at once, so they change in sets."""

from datetime import datetime

from windlass_coordinator.core.records import ClusterKey, JobKey
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import NodeKey, TaskKey
from windlass_proto.model.states import JobState, TaskState

_TASKS_OF_JOB = "SELECT task_key FROM tasks WHERE job_key = $1"

_LIVE = f"task_key IN ({_TASKS_OF_JOB}) AND ended_at IS NULL"

_STOP_TASKS = """
UPDATE tasks SET has_work = 0, stopped = stopped + ready_again + retry_wait, ready_again = 0, retry_wait = 0,
  ended_at = CASE WHEN active > 0 THEN NULL ELSE $2::bigint END,
  state = CASE WHEN active > 0 THEN 'STOPPING' WHEN state = 'WAITING' THEN $3::text
               WHEN failed > 0 THEN 'FAILED' ELSE 'STOPPED' END
WHERE job_key = $1 AND state IN ('WAITING', 'READY', 'RUNNING')
RETURNING task_key, state"""


class PostgresSteering(PostgresLocks):
    """The part of a transaction that stops and restarts whole jobs. The verb holds the job already."""

    def begin_stopping(
        self, job_key: JobKey, *, stop_as: JobState, reason: str, now: datetime
    ) -> dict[TaskKey, TaskState]:
        self._lock_jobs([job_key])
        self._change(
            "UPDATE jobs SET state = 'STOPPING', stop_as = $2, reason = $3 WHERE job_key = $1",
            job_key,
            stop_as,
            reason,
        )
        self._stop_instances(job_key)
        # What was never ready is skipped when the job failed; a user's stop stops all alike.
        waiting = TaskState.STOPPED if stop_as is JobState.STOPPED else TaskState.SKIPPED
        rows = self._change_returning(_STOP_TASKS, job_key, to_us(now), waiting)
        self._change(
            """UPDATE jobs SET tasks_open = (SELECT count(*) FROM tasks WHERE job_key = $1
                 AND state = 'STOPPING') WHERE job_key = $1""",
            job_key,
        )
        return {TaskKey(key): TaskState(state) for key, state in rows if state != "STOPPING"}

    def _stop_instances(self, job_key: JobKey) -> None:
        self._change(f"UPDATE attempts SET state = 'STOPPING' WHERE {_LIVE}", job_key)
        self._change(
            f"""UPDATE instances SET due_at = NULL,
                  state = CASE WHEN state = 'ACTIVE' THEN 'STOPPING' ELSE 'STOPPED' END
                WHERE task_key IN ({_TASKS_OF_JOB}) AND state IN ('ACTIVE', 'READY', 'RETRY_WAIT')""",
            job_key,
        )
        self._change(f"DELETE FROM ready_again WHERE task_key IN ({_TASKS_OF_JOB})", job_key)

    def nodes_running(self, job_key: JobKey) -> set[NodeKey]:
        rows = self._rows(f"SELECT DISTINCT node_key FROM attempts WHERE {_LIVE}", job_key)
        return {NodeKey(row[0]) for row in rows}

    def restart_job(self, job_key: JobKey, *, all_instances: bool, now: datetime) -> set[ClusterKey]:
        kept = "'none'" if all_instances else "'SUCCEEDED'"
        again = f"task_key IN ({_TASKS_OF_JOB} AND state <> {kept}) AND state <> {kept}"
        self._change(
            f"INSERT INTO ready_again (task_key, idx) SELECT task_key, idx FROM instances WHERE {again}",
            job_key,
        )
        self._change(
            f"UPDATE instances SET state = 'READY', user_failures = 0, infra_failures = 0 WHERE {again}",
            job_key,
        )
        self._reopen_tasks(job_key, kept)
        self._change(
            """UPDATE jobs SET state = 'WAITING', reason = '', stop_as = NULL, generation = generation + 1,
                 started_at = NULL, ended_at = NULL,
                 tasks_open = (SELECT count(*) FROM tasks WHERE job_key = $1 AND state <> 'SUCCEEDED')
               WHERE job_key = $1""",
            job_key,
        )
        rows = self._rows(
            "SELECT DISTINCT cluster_key FROM tasks WHERE job_key = $1 AND has_work = 1", job_key
        )
        return {ClusterKey(row[0]) for row in rows}

    def _reopen_tasks(self, job_key: JobKey, kept: str) -> None:
        self._change(
            f"""UPDATE tasks SET state = 'WAITING', reason = '', started_at = NULL, ended_at = NULL,
                  failed = 0, stopped = 0,
                  ready_again = (SELECT count(*) FROM ready_again r WHERE r.task_key = tasks.task_key),
                  succeeded = CASE WHEN {kept} = 'none' THEN 0 ELSE succeeded END
                WHERE job_key = $1 AND state <> {kept}""",
            job_key,
        )
        self._change(
            """UPDATE tasks SET blocked_by = (SELECT count(*) FROM edges e JOIN tasks p
                   ON p.task_key = e.parent_key AND p.state <> 'SUCCEEDED'
                   WHERE e.child_key = tasks.task_key)
               WHERE job_key = $1""",
            job_key,
        )
        self._change(
            """UPDATE tasks SET state = 'READY', has_work = 1
               WHERE job_key = $1 AND state = 'WAITING' AND blocked_by = 0""",
            job_key,
        )
