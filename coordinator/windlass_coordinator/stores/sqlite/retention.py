"""Forgetting on SQLite. Pages that become free are used again; the file itself does not shrink."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.records import JobKey
from windlass_coordinator.core.retention import EndedJob
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.ids import JobId

_ENDED = """
SELECT job_key, job_id, ended_at, deleted_at,
  deleted_at IS NOT NULL OR state IN ('SUCCEEDED', 'FAILED', 'STOPPED')
FROM jobs WHERE job_key > ?1 AND job_key < (SELECT max(job_key) FROM jobs) ORDER BY job_key LIMIT ?2"""

_TASKS_OF_JOB = "SELECT task_key FROM tasks WHERE job_key = ?1"

# Each in an order in which a kill between two of them leaves nothing that points nowhere.
_IN_PORTIONS = (
    f"""DELETE FROM attempts WHERE (task_key, idx, attempt) IN (
          SELECT a.task_key, a.idx, a.attempt FROM attempts a
          WHERE a.task_key IN ({_TASKS_OF_JOB}) LIMIT ?2)""",
    f"""DELETE FROM ready_again WHERE (task_key, idx) IN (
          SELECT r.task_key, r.idx FROM ready_again r WHERE r.task_key IN ({_TASKS_OF_JOB}) LIMIT ?2)""",
    f"""DELETE FROM published WHERE (task_key, idx) IN (
          SELECT p.task_key, p.idx FROM published p WHERE p.task_key IN ({_TASKS_OF_JOB}) LIMIT ?2)""",
    f"""DELETE FROM instances WHERE (task_key, idx) IN (
          SELECT i.task_key, i.idx FROM instances i WHERE i.task_key IN ({_TASKS_OF_JOB}) LIMIT ?2)""",
    f"""DELETE FROM edges WHERE (parent_key, child_key) IN (
          SELECT e.parent_key, e.child_key FROM edges e WHERE e.parent_key IN ({_TASKS_OF_JOB}) LIMIT ?2)""",
    "DELETE FROM tasks WHERE task_key IN (SELECT t.task_key FROM tasks t WHERE t.job_key = ?1 LIMIT ?2)",
)


class SqliteRetention:
    """The part of a transaction that forgets."""

    _db: sqlite3.Connection

    def ended_jobs(self, *, after: JobKey, limit: int) -> tuple[list[EndedJob], JobKey | None]:
        rows = self._db.execute(_ENDED, (after, limit)).fetchall()
        following = JobKey(rows[-1][0]) if len(rows) == limit else None
        return [_ended_job(row) for row in rows if row[4]], following

    def remove_job_rows(self, job_key: JobKey, *, limit: int) -> tuple[int, bool]:
        removed = 0
        for statement in _IN_PORTIONS:
            removed += self._db.execute(statement, (job_key, limit - removed)).rowcount
            if removed >= limit:
                return removed, False
        self._db.execute(
            "DELETE FROM submissions WHERE job_id = (SELECT job_id FROM jobs WHERE job_key = ?)", (job_key,)
        )
        self._db.execute("DELETE FROM jobs WHERE job_key = ?", (job_key,))
        return removed + 1, True

    def remove_facts(self, *, before: datetime, limit: int) -> int:
        # They are in the order of time, so nothing behind the first young one is looked at.
        return self._db.execute(
            "DELETE FROM facts WHERE seq IN "
            "(SELECT seq FROM (SELECT seq, at FROM facts ORDER BY seq LIMIT ?) WHERE at < ?)",
            (limit, to_us(before)),
        ).rowcount

    def unknown_jobs(self, job_ids: Sequence[JobId]) -> list[JobId]:
        rows = self._db.execute(
            "SELECT k.value FROM json_each(?) k WHERE NOT EXISTS "
            "(SELECT 1 FROM jobs j WHERE j.job_id = k.value AND j.deleted_at IS NULL)",
            (json.dumps(list(job_ids)),),
        )
        return [JobId(row[0]) for row in rows]


# A row is untyped: the driver knows no column types.
def _ended_job(row: Any) -> EndedJob:
    return EndedJob(
        job_key=JobKey(row[0]),
        job_id=JobId(row[1]),
        ended_at=from_us_or_none(row[2]),
        deleted_at=from_us_or_none(row[3]),
    )
