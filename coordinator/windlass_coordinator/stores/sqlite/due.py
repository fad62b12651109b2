"""Back-offs and avoided nodes on SQLite: what time alone makes claimable."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from windlass_coordinator.core.records import ClusterKey
from windlass_coordinator.stores.sql.rows import count_by_task
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.ids import TaskKey

# A node is avoided only where there is another one.
_READY_AGAIN = """
INSERT INTO ready_again (task_key, idx, avoid_node, avoid_until)
SELECT i.task_key, i.idx, n.node_key, CASE WHEN n.node_key IS NOT NULL THEN ?3 END
FROM instances i LEFT JOIN nodes n ON n.node_key = i.avoid_node AND EXISTS (
  SELECT 1 FROM nodes o
  WHERE o.cluster_key = n.cluster_key AND o.state = 'READY' AND o.node_key <> n.node_key)
WHERE i.task_key = ?1 AND i.idx = ?2"""


class SqliteDue:
    """The part of a transaction that knows what waits for its time."""

    _db: sqlite3.Connection

    def due_instances(self, *, now: datetime, limit: int) -> list[tuple[TaskKey, int]]:
        rows = self._db.execute(
            "SELECT task_key, idx FROM instances WHERE due_at IS NOT NULL AND due_at <= ? "
            "ORDER BY due_at LIMIT ?",
            (to_us(now), limit),
        )
        return [(TaskKey(row[0]), row[1]) for row in rows]

    def next_due(self) -> datetime | None:
        row = self._db.execute(
            """SELECT min(at) FROM (
                 SELECT min(due_at) AS at FROM instances WHERE due_at IS NOT NULL
                 UNION ALL SELECT min(avoid_until) FROM ready_again WHERE avoid_until IS NOT NULL)"""
        ).fetchone()
        return from_us_or_none(row[0])

    def end_avoidance(self, *, now: datetime) -> set[ClusterKey]:
        rows = self._db.execute(
            "UPDATE ready_again SET avoid_node = NULL, avoid_until = NULL "
            "WHERE avoid_until IS NOT NULL AND avoid_until <= ? RETURNING task_key",
            (to_us(now),),
        ).fetchall()
        return {
            ClusterKey(cluster)
            for key in {row[0] for row in rows}
            for (cluster,) in self._db.execute("SELECT cluster_key FROM tasks WHERE task_key = ?", (key,))
        }

    def shift_due(self, by: timedelta) -> None:
        us = by // timedelta(microseconds=1)
        for table, column in (("instances", "due_at"), ("ready_again", "avoid_until"), ("nodes", "drain_by")):
            self._db.execute(f"UPDATE {table} SET {column} = {column} + ? WHERE {column} IS NOT NULL", (us,))

    def bring_due_forward(self, *, latest: datetime) -> None:
        at = to_us(latest)
        self._db.execute("UPDATE instances SET due_at = ? WHERE due_at IS NOT NULL AND due_at > ?", (at, at))
        self._db.execute(
            "UPDATE ready_again SET avoid_until = ? WHERE avoid_until IS NOT NULL AND avoid_until > ?",
            (at, at),
        )

    def make_ready(
        self, instances: Sequence[tuple[TaskKey, int]], *, avoid_until: datetime
    ) -> set[ClusterKey]:
        self._db.executemany(_READY_AGAIN, [(key, index, to_us(avoid_until)) for key, index in instances])
        self._db.executemany(
            "UPDATE instances SET state = 'READY', due_at = NULL, avoid_node = NULL "
            "WHERE task_key = ? AND idx = ?",
            instances,
        )
        clusters = set()
        for key, count in count_by_task(instances).items():
            row = self._db.execute(
                """UPDATE tasks SET retry_wait = retry_wait - ?2, ready_again = ready_again + ?2,
                     has_work = (state IN ('READY', 'RUNNING'))
                   WHERE task_key = ?1 RETURNING cluster_key""",
                (key, count),
            ).fetchone()
            clusters.add(ClusterKey(row[0]))
        return clusters
