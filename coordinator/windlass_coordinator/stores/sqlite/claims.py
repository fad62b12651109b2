"""Claims on SQLite: ranges become records here (decision D2 of the architecture)."""

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.records import ClaimableTask, Claimed, JobKey, NodeView
from windlass_coordinator.stores.sql.rows import claimed_again
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import JobId, NodeKey, TaskKey, TaskName

# From here on one statement that counts up is cheaper than a row each (2.4-3.6 us against 4.3-5.4).
_RANGE_FROM = 8

_CLAIMABLE = """
SELECT t.task_key, t.job_key, j.job_id, t.name, t.instance_count, t.next_index, t.ready_again, t.spec,
       j.state = 'WAITING', t.state = 'READY', t.gpus
FROM tasks t INDEXED BY tasks_claimable JOIN jobs j ON j.job_key = t.job_key
WHERE t.cluster_key = ? AND t.has_work = 1 AND t.slots <= ? AND t.cpu <= ? AND t.memory_bytes <= ?
  AND t.gpus <= ?
ORDER BY t.priority DESC, t.task_key LIMIT ?"""

_GPUS_IN_USE = """
SELECT coalesce(sum(t.gpus), 0) FROM attempts a JOIN tasks t ON t.task_key = a.task_key
WHERE a.node_key = ? AND a.ended_at IS NULL"""

_TAKE = """
UPDATE tasks SET next_index = next_index + ?2, ready_again = ready_again - ?3, active = active + ?2 + ?3,
  state = 'RUNNING', started_at = coalesce(started_at, ?4),
  has_work = (next_index + ?2 < instance_count OR ready_again - ?3 > 0)
WHERE task_key = ?1"""

_NEW_INSTANCES = """
INSERT INTO instances (task_key, idx, state, attempt, fence)
WITH RECURSIVE r(i) AS (SELECT ?2 UNION ALL SELECT i + 1 FROM r WHERE i + 1 < ?3)
SELECT ?1, i, 'ACTIVE', 1, ?4 FROM r"""

_NEW_ATTEMPTS = """
INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, leased_at)
WITH RECURSIVE r(i) AS (SELECT ?2 UNION ALL SELECT i + 1 FROM r WHERE i + 1 < ?3)
SELECT ?1, i, 1, ?4, ?5, ?6, ?7, 'LEASED', ?8 FROM r"""

_NEW_INSTANCE = "INSERT INTO instances (task_key, idx, state, attempt, fence) VALUES (?, ?, 'ACTIVE', 1, ?)"

_NEW_ATTEMPT = """
INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, leased_at)
VALUES (?, ?, ?, ?, ?, ?, ?, 'LEASED', ?)"""

_AGAIN = """
UPDATE instances SET state = 'ACTIVE', attempt = attempt + 1, fence = max(fence, ?3) + 1, due_at = NULL
WHERE task_key = ?1 AND idx = ?2 RETURNING attempt, fence"""


class SqliteClaims:
    """The claiming part of a transaction."""

    _db: sqlite3.Connection
    _incarnation: int

    def gpus_in_use(self, node_key: NodeKey) -> int:
        in_use: int = self._db.execute(_GPUS_IN_USE, (node_key,)).fetchone()[0]
        return in_use

    def claimable(self, node: NodeView, *, limit: int, gpus: int) -> Iterator[ClaimableTask]:
        has = node.capacity
        rows = self._db.execute(
            _CLAIMABLE, (node.cluster_key, has.slots, has.cpu, has.memory_bytes, gpus, limit)
        )
        for row in rows:
            yield ClaimableTask(
                task_key=TaskKey(row[0]),
                job_key=JobKey(row[1]),
                job_id=JobId(row[2]),
                name=TaskName(row[3]),
                instance_count=row[4],
                next_index=row[5],
                ready_again=row[6],
                gpus=row[10],
                spec=row[7],
                cluster=node.cluster,
                job_is_waiting=bool(row[8]),
                is_fresh=bool(row[9]),
            )

    def claim(
        self,
        node: NodeView,
        taken: Sequence[tuple[ClaimableTask, int, int]],
        *,
        poll_seq: int,
        now: datetime,
    ) -> list[Claimed]:
        at = to_us(now)
        stamp = (node.node_key, node.epoch, poll_seq)
        first_fence = fence_floor(self._incarnation) + 1
        self._lease_fresh([(task, fresh) for task, _, fresh in taken if fresh], first_fence, (*stamp, at))
        claimed, takes = [], []
        for task, again, fresh in taken:
            index, attempt, fence = self._lease_again(task.task_key, again, (*stamp, at))
            takes.append((task.task_key, fresh, len(index), at))
            if not index and not fresh:
                continue
            index.extend(range(task.next_index, task.next_index + fresh))
            attempt.extend([1] * fresh)
            fence.extend([first_fence] * fresh)
            claimed.append(Claimed(task=task, index=tuple(index), attempt=tuple(attempt), fence=tuple(fence)))
        self._db.executemany(_TAKE, [take for take in takes if take[1] or take[2]])
        return claimed

    def _lease_fresh(
        self, taken: list[tuple[ClaimableTask, int]], fence: int, stamp: tuple[int, int, int, int]
    ) -> None:
        rows: list[tuple[int, int]] = []
        for task, count in taken:
            start, end = task.next_index, task.next_index + count
            if count >= _RANGE_FROM:
                self._db.execute(_NEW_INSTANCES, (task.task_key, start, end, fence))
                self._db.execute(_NEW_ATTEMPTS, (task.task_key, start, end, fence, *stamp))
            else:
                rows.extend((task.task_key, index) for index in range(start, end))
        if rows:
            self._db.executemany(_NEW_INSTANCE, [(*row, fence) for row in rows])
            self._db.executemany(_NEW_ATTEMPT, [(*row, 1, fence, *stamp) for row in rows])

    def _lease_again(
        self, task_key: TaskKey, count: int, stamp: tuple[int, int, int, int]
    ) -> tuple[list[int], list[int], list[int]]:
        if not count:
            return [], [], []
        rows = self._db.execute(
            "SELECT idx FROM ready_again WHERE task_key = ? AND (avoid_node IS NULL OR avoid_node <> ?) "
            "ORDER BY idx LIMIT ?",
            (task_key, stamp[0], count),
        ).fetchall()
        index = [row[0] for row in rows]
        self._db.executemany(
            "DELETE FROM ready_again WHERE task_key = ? AND idx = ?", [(task_key, i) for i in index]
        )
        floor = fence_floor(self._incarnation)
        renewed = [self._db.execute(_AGAIN, (task_key, i, floor)).fetchone() for i in index]
        attempt, fence = [row[0] for row in renewed], [row[1] for row in renewed]
        self._db.executemany(
            _NEW_ATTEMPT,
            [(task_key, i, a, f, *stamp) for i, a, f in zip(index, attempt, fence, strict=True)],
        )
        return index, attempt, fence

    def leased_by_poll(self, node: NodeView, *, poll_seq: int) -> list[Claimed]:
        rows = self._db.execute(
            """
            SELECT a.task_key, t.job_key, j.job_id, t.name, t.instance_count, t.spec,
                   a.idx, a.attempt, a.fence
            FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN jobs j ON j.job_key = t.job_key
            WHERE a.node_key = ? AND a.ended_at IS NULL AND a.epoch = ? AND a.poll_seq = ?
              AND a.state = 'LEASED'
            ORDER BY a.task_key, a.idx""",
            (node.node_key, node.epoch, poll_seq),
        ).fetchall()
        by_task: dict[int, list[Any]] = {}
        for row in rows:
            by_task.setdefault(row[0], []).append(row)
        return [claimed_again(group, node) for group in by_task.values()]
