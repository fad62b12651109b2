"""Claims on PostgreSQL: ranges become records here (decision D2 of the architecture)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.records import ClaimableTask, Claimed, JobKey, NodeView
from windlass_coordinator.stores.postgres.arrays import int_columns, ints
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.rows import claimed_again
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import JobId, NodeKey, TaskKey, TaskName

# Others may take what was seen while its job is waited for; then there may be more behind it.
_LOOKS = 3

# As many tasks, in their order, as together have the work that is wanted.
_CANDIDATES = """
SELECT task_key, job_key FROM (
  SELECT task_key, job_key, priority,
    sum(work) OVER (ORDER BY priority DESC, task_key ROWS UNBOUNDED PRECEDING) - work AS before
  FROM (
    SELECT task_key, job_key, priority, instance_count - next_index + ready_again AS work
    FROM tasks
    WHERE cluster_key = $1 AND has_work = 1 AND slots <= $2 AND cpu <= $3 AND memory_bytes <= $4
      AND gpus <= $5
    ORDER BY priority DESC, task_key LIMIT $6) first) counted
WHERE before < $6 ORDER BY priority DESC, task_key"""

_LOCK_ONE = "SELECT job_key FROM jobs WHERE job_key = $1 FOR UPDATE"

_LOCK_FREE = "SELECT job_key FROM jobs WHERE job_key = ANY($1::bigint[]) FOR UPDATE SKIP LOCKED"

_CLAIMABLE = """
SELECT t.task_key, t.job_key, j.job_id, t.name, t.instance_count, t.next_index, t.ready_again, t.spec,
       j.state = 'WAITING', t.state = 'READY', t.gpus
FROM tasks t JOIN jobs j ON j.job_key = t.job_key
WHERE t.task_key = ANY($1::bigint[]) AND t.has_work = 1
ORDER BY t.priority DESC, t.task_key"""

# A node whose session is being changed right now gets nothing.
_SAME_SESSION = """
SELECT true FROM nodes WHERE node_key = $1 AND epoch = $2 AND state = $3 FOR KEY SHARE SKIP LOCKED"""

# The same, and no other claim of GPUs for the node until this one has committed.
_SAME_SESSION_ALONE = _SAME_SESSION.replace("KEY SHARE", "NO KEY UPDATE")

_GPUS_IN_USE = """
SELECT coalesce(sum(t.gpus), 0)::bigint FROM attempts a JOIN tasks t ON t.task_key = a.task_key
WHERE a.node_key = $1 AND a.ended_at IS NULL"""

_TAKE = """
WITH taken AS (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) t(task_key, fresh, again)),
starts AS (
  UPDATE tasks SET next_index = next_index + t.fresh, ready_again = ready_again - t.again,
    active = active + t.fresh + t.again, state = 'RUNNING', started_at = coalesce(started_at, $8),
    has_work = (next_index + t.fresh < instance_count OR ready_again - t.again > 0)::int
  FROM taken t WHERE tasks.task_key = t.task_key
  RETURNING t.task_key, next_index - t.fresh AS low, next_index - 1 AS high),
fresh AS (SELECT task_key, idx FROM starts, generate_series(low, high) idx),
made AS (
  INSERT INTO instances (task_key, idx, state, attempt, fence)
  SELECT task_key, idx, 'ACTIVE', 1, $4 FROM fresh)
INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, leased_at)
SELECT task_key, idx, 1, $4, $5, $6, $7, 'LEASED', $8 FROM fresh"""

_AGAIN = """
WITH gone AS (
  DELETE FROM ready_again WHERE (task_key, idx) IN (
    SELECT task_key, idx FROM ready_again
    WHERE task_key = $1 AND (avoid_node IS NULL OR avoid_node <> $4) ORDER BY idx LIMIT $2)
  RETURNING task_key, idx),
renewed AS (
  UPDATE instances i SET state = 'ACTIVE', attempt = attempt + 1, fence = greatest(fence, $3) + 1,
    due_at = NULL
  FROM gone g WHERE i.task_key = g.task_key AND i.idx = g.idx
  RETURNING i.task_key, i.idx, i.attempt, i.fence),
made AS (
  INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, leased_at)
  SELECT task_key, idx, attempt, fence, $4, $5, $6, 'LEASED', $7 FROM renewed)
SELECT idx, attempt, fence FROM renewed ORDER BY idx"""

_LEASED_BY_POLL = """
SELECT a.task_key, t.job_key, j.job_id, t.name, t.instance_count, t.spec, a.idx, a.attempt, a.fence
FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN jobs j ON j.job_key = t.job_key
WHERE a.node_key = $1 AND a.ended_at IS NULL AND a.epoch = $2 AND a.poll_seq = $3 AND a.state = 'LEASED'
ORDER BY a.task_key, a.idx"""


class PostgresClaims(PostgresLocks):
    """The claiming part of a transaction."""

    def gpus_in_use(self, node_key: NodeKey) -> int:
        in_use: int = self._row(_GPUS_IN_USE, node_key)[0]
        return in_use

    def claimable(self, node: NodeView, *, limit: int, gpus: int) -> list[ClaimableTask]:
        has = node.capacity
        for _ in range(_LOOKS):
            candidates = self._rows(
                _CANDIDATES, node.cluster_key, has.slots, has.cpu, has.memory_bytes, gpus, limit
            )
            held = self._with_their_jobs([(row[0], row[1]) for row in candidates])
            found = self._rows(_CLAIMABLE, ints(held)) if held else []
            if found or not held:
                return _claimable(found, node)
        self.has_skipped = True
        return []

    def _with_their_jobs(self, candidates: list[tuple[int, int]]) -> list[int]:
        """Those of the (task, job) whose jobs are held now."""
        jobs = list(dict.fromkeys(job for _, job in candidates if job not in self._jobs))
        if jobs and not self._jobs:
            # Nothing is held that others wait for, so the first in the queue is worth waiting for.
            self._jobs.update(row[0] for row in self._lock(_LOCK_ONE, jobs.pop(0)))
        if jobs:
            self._jobs.update(row[0] for row in self._lock(_LOCK_FREE, ints(jobs)))
        held = [task for task, job in candidates if job in self._jobs]
        if len(held) < len(candidates):
            self.has_skipped = True
        return held

    def claim(
        self,
        node: NodeView,
        taken: Sequence[tuple[ClaimableTask, int, int]],
        *,
        poll_seq: int,
        now: datetime,
    ) -> list[Claimed]:
        gpus = sum(task.gpus * (again + fresh) for task, again, fresh in taken)
        session = _SAME_SESSION_ALONE if gpus else _SAME_SESSION
        if not self._lock(session, node.node_key, node.epoch, node.state) or (
            gpus and gpus > node.capacity.gpus - self.gpus_in_use(node.node_key)
        ):
            self.has_skipped = True
            return []
        floor = fence_floor(self._incarnation)
        stamp = (node.node_key, node.epoch, poll_seq, to_us(now))
        claimed, counts = [], []
        for task, again, fresh in taken:
            index, attempt, fence = self._lease_again(task.task_key, again, floor, stamp)
            if not index and not fresh:
                continue
            counts.append((task.task_key, fresh, len(index)))
            index += range(task.next_index, task.next_index + fresh)
            attempt += [1] * fresh
            fence += [floor + 1] * fresh
            claimed.append(Claimed(task=task, index=tuple(index), attempt=tuple(attempt), fence=tuple(fence)))
        if counts:
            self._change(_TAKE, *int_columns(counts), floor + 1, *stamp)
        return claimed

    def _lease_again(
        self, task_key: TaskKey, count: int, floor: int, stamp: tuple[int, int, int, int]
    ) -> tuple[list[int], list[int], list[int]]:
        if not count:
            return [], [], []
        rows = self._change_returning(_AGAIN, task_key, count, floor, *stamp)
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    def leased_by_poll(self, node: NodeView, *, poll_seq: int) -> list[Claimed]:
        by_task: dict[int, list[tuple[object, ...]]] = {}
        for row in self._rows(_LEASED_BY_POLL, node.node_key, node.epoch, poll_seq):
            by_task.setdefault(row[0], []).append(row)
        return [claimed_again(group, node) for group in by_task.values()]


# Rows are untyped: the driver knows no column types.
def _claimable(rows: list[Any], node: NodeView) -> list[ClaimableTask]:
    return [
        ClaimableTask(
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
            job_is_waiting=row[8],
            is_fresh=row[9],
        )
        for row in rows
    ]
