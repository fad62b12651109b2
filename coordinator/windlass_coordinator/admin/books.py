"""Whether the books add up: counters against the rows they count (invariants I3 and I21 of the protocol)."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from windlass_proto.model.diagnosis import Finding, good, problem

# Each finds what is wrong, named by a job or task. A deleted job may be half removed by retention.
_CHECKS = {
    "books.tasks": (
        "counters of tasks equal their instances",
        """
        WITH counted AS (
          SELECT task_key, count(*) AS n, sum(state = 'READY') AS ready,
            sum(state IN ('ACTIVE', 'STOPPING')) AS active, sum(state = 'RETRY_WAIT') AS waiting,
            sum(state = 'SUCCEEDED') AS succeeded, sum(state = 'FAILED') AS failed,
            sum(state = 'STOPPED') AS stopped
          FROM instances GROUP BY task_key)
        SELECT 'task ' || t.name || ' of ' || j.job_id FROM tasks t JOIN jobs j ON j.job_key = t.job_key
        LEFT JOIN counted c ON c.task_key = t.task_key
        WHERE j.deleted_at IS NULL
          AND (t.next_index, t.ready_again, t.active, t.retry_wait, t.succeeded, t.failed, t.stopped) IS NOT
            (coalesce(c.n, 0), coalesce(c.ready, 0), coalesce(c.active, 0), coalesce(c.waiting, 0),
             coalesce(c.succeeded, 0), coalesce(c.failed, 0), coalesce(c.stopped, 0))""",
    ),
    "books.jobs": (
        "counters of jobs equal their tasks",
        """
        SELECT j.job_id FROM jobs j WHERE j.deleted_at IS NULL AND j.tasks_open <> (
          SELECT count(*) FROM tasks t WHERE t.job_key = j.job_key
            AND t.state NOT IN ('SUCCEEDED', 'FAILED', 'STOPPED', 'SKIPPED'))""",
    ),
    "books.live_attempts": (
        "an instance is at work if and only if one of its attempts is live",
        """
        WITH live AS (
          SELECT task_key, idx, count(*) AS n FROM attempts WHERE ended_at IS NULL GROUP BY task_key, idx)
        SELECT 'instance ' || i.idx || ' of task ' || i.task_key FROM instances i
        JOIN tasks t ON t.task_key = i.task_key JOIN jobs j ON j.job_key = t.job_key
        LEFT JOIN live l ON (l.task_key, l.idx) = (i.task_key, i.idx)
        WHERE j.deleted_at IS NULL AND coalesce(l.n, 0) <> (i.state IN ('ACTIVE', 'STOPPING'))
        UNION ALL
        SELECT 'an attempt of instance ' || a.idx || ' of task ' || a.task_key FROM attempts a
        WHERE NOT EXISTS (SELECT 1 FROM instances i WHERE (i.task_key, i.idx) = (a.task_key, a.idx))""",
    ),
    "books.ready_again": (
        "what waits to be claimed again is listed once",
        """
        SELECT 'instance ' || i.idx || ' of task ' || i.task_key FROM instances i
        WHERE i.state = 'READY' AND NOT EXISTS (
          SELECT 1 FROM ready_again r WHERE (r.task_key, r.idx) = (i.task_key, i.idx))
        UNION ALL
        SELECT 'instance ' || r.idx || ' of task ' || r.task_key FROM ready_again r
        WHERE NOT EXISTS (SELECT 1 FROM instances i
          WHERE (i.task_key, i.idx) = (r.task_key, r.idx) AND i.state = 'READY')""",
    ),
}
_SHOWN = 3


def audit_books(db: sqlite3.Connection, file: Path) -> Iterator[Finding]:
    """Counts everything again."""
    for what, (rule, query) in _CHECKS.items():
        rows = [row[0] for row in db.execute(query).fetchmany(_SHOWN + 1)]
        if not rows:
            yield good(what, file, rule)
            continue
        more = " and more" if len(rows) > _SHOWN else ""
        yield problem(
            what,
            file,
            f"it does not hold that {rule}: {', '.join(rows[:_SHOWN])}{more}",
            do="back it up as it is and report this as a bug; deleting the job helps",
        )
