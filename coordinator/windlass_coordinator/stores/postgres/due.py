"""Back-offs and avoided nodes on PostgreSQL: what time alone makes claimable."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from windlass_coordinator.core.records import ClusterKey
from windlass_coordinator.stores.postgres.arrays import int_columns
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.rows import count_by_task
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.ids import TaskKey

_NEXT_DUE = """
SELECT min(at) FROM (
  SELECT min(due_at) AS at FROM instances WHERE due_at IS NOT NULL
  UNION ALL SELECT min(avoid_until) FROM ready_again WHERE avoid_until IS NOT NULL) found"""

_END_AVOIDANCE = """
WITH free AS (
  UPDATE ready_again SET avoid_node = NULL, avoid_until = NULL
  WHERE avoid_until IS NOT NULL AND avoid_until <= $1 RETURNING task_key)
SELECT DISTINCT cluster_key FROM tasks WHERE task_key IN (SELECT task_key FROM free)"""

_DUE = """
SELECT task_key, idx FROM instances WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2"""

_STILL_DUE = """
SELECT i.task_key, i.idx FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY r(task_key, idx, place)
JOIN instances i ON i.task_key = r.task_key AND i.idx = r.idx AND i.due_at <= $3 ORDER BY r.place"""

# A node is avoided only where there is another one.
_READY_AVOIDING = """
INSERT INTO ready_again (task_key, idx, avoid_node, avoid_until)
SELECT i.task_key, i.idx, n.node_key, CASE WHEN n.node_key IS NOT NULL THEN $3::bigint END
FROM unnest($1::bigint[], $2::bigint[]) r(task_key, idx)
JOIN instances i ON i.task_key = r.task_key AND i.idx = r.idx
LEFT JOIN nodes n ON n.node_key = i.avoid_node AND EXISTS (
  SELECT 1 FROM nodes o
  WHERE o.cluster_key = n.cluster_key AND o.state = 'READY' AND o.node_key <> n.node_key)"""

_READY = """
UPDATE instances i SET state = 'READY', due_at = NULL, avoid_node = NULL
FROM unnest($1::bigint[], $2::bigint[]) r(task_key, idx) WHERE i.task_key = r.task_key AND i.idx = r.idx"""

_TASKS_READY = """
UPDATE tasks SET retry_wait = retry_wait - r.count, ready_again = ready_again + r.count,
  has_work = (state IN ('READY', 'RUNNING'))::int
FROM unnest($1::bigint[], $2::bigint[]) r(task_key, count) WHERE tasks.task_key = r.task_key
RETURNING cluster_key"""


class PostgresDue(PostgresLocks):
    """The part of a transaction that knows what waits for a time."""

    def due_instances(self, *, now: datetime, limit: int) -> list[tuple[TaskKey, int]]:
        at = to_us(now)
        seen = self._rows(_DUE, at, limit)
        if not seen:
            return []
        self._lock_jobs_of_tasks({row[0] for row in seen})
        # Jobs may have been stopped while they were waited for.
        due = self._rows(_STILL_DUE, *int_columns(seen), at)
        return [(TaskKey(row[0]), row[1]) for row in due]

    def next_due(self) -> datetime | None:
        row = self._row(_NEXT_DUE)
        return from_us_or_none(row[0])

    def make_ready(
        self, instances: Sequence[tuple[TaskKey, int]], *, avoid_until: datetime
    ) -> set[ClusterKey]:
        self._lock_jobs_of_tasks({task_key for task_key, _ in instances})
        self._change(_READY_AVOIDING, *int_columns(instances), to_us(avoid_until))
        self._change(_READY, *int_columns(instances))
        counts = list(count_by_task(instances).items())
        return {ClusterKey(row[0]) for row in self._change_returning(_TASKS_READY, *int_columns(counts))}

    def end_avoidance(self, *, now: datetime) -> set[ClusterKey]:
        return {ClusterKey(row[0]) for row in self._change_returning(_END_AVOIDANCE, to_us(now))}

    def shift_due(self, by: timedelta) -> None:
        us = by // timedelta(microseconds=1)
        for table, column in (("instances", "due_at"), ("ready_again", "avoid_until"), ("nodes", "drain_by")):
            self._change(f"UPDATE {table} SET {column} = {column} + $1 WHERE {column} IS NOT NULL", us)

    def bring_due_forward(self, *, latest: datetime) -> None:
        for table, column in (("instances", "due_at"), ("ready_again", "avoid_until")):
            self._change(
                f"UPDATE {table} SET {column} = $1 WHERE {column} IS NOT NULL AND {column} > $1",
                to_us(latest),
            )
