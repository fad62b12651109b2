"""Reports on SQLite: attempts end, instances and counters follow."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.records import (
    AttemptView,
    ClusterKey,
    DetachedAttempt,
    HeldAttempt,
    LogFacts,
    NodeView,
    TaskBump,
    TaskView,
)
from windlass_coordinator.stores.base import AttemptEnd, InstanceChange
from windlass_coordinator.stores.sql.detached import detached_from_rows
from windlass_coordinator.stores.sql.rows import (
    OUTPUT_IS_GIVEN_UP,
    TASK_COLUMNS,
    attempt_key,
    attempt_view,
    count_by_task,
    end_fields,
    exit_fields,
    taken_down,
    task_view,
)
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.events import Exited
from windlass_proto.model.ids import AttemptRef, Fence, JobId, NodeKey, TaskKey, TenantId
from windlass_proto.model.states import AttemptState, InstanceState, TaskState

# A range is read at once when at least every so many-th row of it is wanted.
_DENSE = 4

_ATTEMPT = "SELECT idx, attempt, fence, state, node_key, failure, exit_code, exit_signal FROM attempts "

_END = """
UPDATE attempts SET state = ?, ended_at = ?, started_at = coalesce(started_at, max(leased_at, ?)),
  failure = ?, reason = ?, exit_code = coalesce(?, exit_code), exit_signal = coalesce(?, exit_signal),
  ran_for_us = coalesce(?, ran_for_us), user_cpu_us = coalesce(?, user_cpu_us),
  system_cpu_us = coalesce(?, system_cpu_us), peak_memory_bytes = coalesce(?, peak_memory_bytes),
  stdout_end = coalesce(?, stdout_end), stderr_end = coalesce(?, stderr_end)
WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ? AND ended_at IS NULL"""

_EXITED = """
UPDATE attempts SET state = 'FINALIZING', started_at = coalesce(started_at, max(leased_at, ?)), exit_code = ?,
  exit_signal = ?, ran_for_us = ?, user_cpu_us = ?, system_cpu_us = ?, peak_memory_bytes = ?,
  stdout_end = ?, stderr_end = ?
WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ? AND ended_at IS NULL"""

_TASKS = f"SELECT {TASK_COLUMNS} FROM json_each(?1) k JOIN tasks ON task_key = k.value"

_BUMP = """
UPDATE tasks SET active = active + ?2, ready_again = ready_again + ?3, retry_wait = retry_wait + ?4,
  succeeded = succeeded + ?5, failed = failed + ?6, stopped = stopped + ?7, state = ?8,
  has_work = (?8 IN ('READY', 'RUNNING') AND (next_index < instance_count OR ready_again + ?3 > 0)),
  ended_at = ?9
WHERE task_key = ?1"""


_TAKEN_DOWN = taken_down("?1", "?2", "?3", "?4")

# A node is avoided only where there is another one.
_READY_AGAIN = """
INSERT INTO ready_again (task_key, idx, avoid_node, avoid_until)
SELECT i.task_key, i.idx, n.node_key, CASE WHEN n.node_key IS NOT NULL THEN ?3 END
FROM instances i LEFT JOIN nodes n ON n.node_key = i.avoid_node AND EXISTS (
  SELECT 1 FROM nodes o
  WHERE o.cluster_key = n.cluster_key AND o.state = 'READY' AND o.node_key <> n.node_key)
WHERE i.task_key = ?1 AND i.idx = ?2"""


class SqliteReports:
    """The reporting part of a transaction."""

    _db: sqlite3.Connection
    _incarnation: int

    def attempt_views(self, refs: Sequence[AttemptRef]) -> dict[tuple[TaskKey, int, int], AttemptView]:
        by_task: dict[TaskKey, list[AttemptRef]] = {}
        for ref in refs:
            by_task.setdefault(ref.task_key, []).append(ref)
        views: dict[tuple[TaskKey, int, int], AttemptView] = {}
        for task_key, group in by_task.items():
            for row in self._attempt_rows(task_key, group):
                views[task_key, row[0], row[1]] = attempt_view(row)
        return views

    def _attempt_rows(self, task_key: TaskKey, refs: list[AttemptRef]) -> list[Any]:
        low, high = min(ref.index for ref in refs), max(ref.index for ref in refs)
        if len(refs) > 1 and high - low < _DENSE * len(refs):
            return self._db.execute(
                _ATTEMPT + "WHERE task_key = ? AND idx BETWEEN ? AND ?", (task_key, low, high)
            ).fetchall()
        one = _ATTEMPT + "WHERE task_key = ? AND idx = ? AND attempt = ?"
        rows = [self._db.execute(one, (task_key, ref.index, ref.attempt)).fetchone() for ref in refs]
        return [row for row in rows if row is not None]

    def failure_counts(self, task_key: TaskKey, index: int) -> tuple[int, int]:
        row = self._db.execute(
            "SELECT user_failures, infra_failures FROM instances WHERE task_key = ? AND idx = ?",
            (task_key, index),
        ).fetchone()
        return (row[0], row[1])

    def progress_attempts(self, changes: Sequence[tuple[AttemptRef, AttemptState]], *, now: datetime) -> None:
        at = to_us(now)
        self._db.executemany(
            """UPDATE attempts SET state = ?, started_at = coalesce(started_at, ?)
               WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ? AND ended_at IS NULL""",
            [
                (state, at if state is AttemptState.RUNNING else None, *attempt_key(ref))
                for ref, state in changes
            ],
        )

    def note_images(self, images: Sequence[tuple[AttemptRef, str]]) -> None:
        self._db.executemany(
            """UPDATE attempts SET image_digest = ?
               WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ? AND image_digest IS NULL""",
            [(digest, *attempt_key(ref)) for ref, digest in images],
        )

    def record_exits(self, exits: Sequence[tuple[AttemptRef, Exited]], *, now: datetime) -> None:
        at = to_us(now)
        self._db.executemany(
            _EXITED, [(at - what.ran_for_us, *exit_fields(what), *attempt_key(ref)) for ref, what in exits]
        )

    def end_attempts(self, ends: Sequence[AttemptEnd], *, now: datetime) -> None:
        at = to_us(now)
        self._db.executemany(
            _END,
            [
                (
                    end.state,
                    at,
                    None if end.exit is None else at - end.exit.ran_for_us,
                    end.failure,
                    end.reason or None,
                    *end_fields(end),
                    *attempt_key(end.ref),
                )
                for end in ends
            ],
        )

    def change_instances(self, changes: Sequence[InstanceChange]) -> None:
        plain: list[InstanceChange] = []
        others: list[InstanceChange] = []
        for c in changes:
            # Nearly all: the instance has ended and nothing but its state changes.
            (
                plain if c.state.is_terminal and c.user_failures is None and not c.raise_fence else others
            ).append(c)
        self._db.executemany(
            "UPDATE instances SET state = ? WHERE task_key = ? AND idx = ?",
            [(c.state, c.task_key, c.index) for c in plain],
        )
        if others:
            self._change_further(others)

    def _change_further(self, others: list[InstanceChange]) -> None:
        floor = fence_floor(self._incarnation)
        self._db.executemany(
            """UPDATE instances SET state = ?, user_failures = coalesce(?, user_failures),
                 infra_failures = coalesce(?, infra_failures), due_at = ?,
                 fence = CASE WHEN ? THEN max(fence, ?) + 1 ELSE fence END,
                 avoid_node = CASE WHEN ? THEN (SELECT a.node_key FROM attempts a
                   WHERE a.task_key = instances.task_key AND a.idx = instances.idx
                     AND a.attempt = instances.attempt) END
               WHERE task_key = ? AND idx = ?""",
            [
                (
                    c.state,
                    c.user_failures,
                    c.infra_failures,
                    None if c.due_at is None else to_us(c.due_at),
                    c.raise_fence,
                    floor,
                    c.avoid_node,
                    c.task_key,
                    c.index,
                )
                for c in others
            ],
        )
        self._db.executemany(
            "INSERT INTO ready_again (task_key, idx) VALUES (?, ?)",
            [(c.task_key, c.index) for c in others if c.state is InstanceState.READY],
        )

    def task_views(self, keys: Collection[TaskKey]) -> dict[TaskKey, TaskView]:
        rows = self._db.execute(_TASKS, (json.dumps(list(keys)),))
        return {row[0]: task_view(row) for row in rows}

    def bump_tasks(
        self,
        bumps: Mapping[TaskKey, tuple[TaskBump, TaskState]],
        *,
        ended: Collection[TaskKey],
        now: datetime,
    ) -> None:
        at = to_us(now)
        self._db.executemany(
            _BUMP,
            [
                (
                    key,
                    bump.active,
                    bump.ready_again,
                    bump.retry_wait,
                    bump.succeeded,
                    bump.failed,
                    bump.stopped,
                    state,
                    at if key in ended else None,
                )
                for key, (bump, state) in bumps.items()
            ],
        )

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

    def nodes_taken_down(self, ref: AttemptRef, *, last: int) -> int:
        row = self._db.execute(_TAKEN_DOWN, (ref.task_key, ref.index, ref.attempt, last)).fetchone()
        return int(row[0])

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

    def held_attempts(self, node_key: NodeKey) -> list[HeldAttempt]:
        rows = self._db.execute(
            "SELECT task_key, idx, attempt, fence, state FROM attempts "
            "WHERE node_key = ? AND ended_at IS NULL",
            (node_key,),
        )
        return [
            HeldAttempt(
                task_key=TaskKey(row[0]),
                index=row[1],
                attempt=row[2],
                fence=Fence(row[3]),
                state=AttemptState(row[4]),
            )
            for row in rows
        ]

    def stopping_attempts(self, node_key: NodeKey) -> list[AttemptRef]:
        rows = self._db.execute(
            "SELECT task_key, idx, attempt, fence FROM attempts "
            "INDEXED BY attempts_stopping WHERE node_key = ? AND state = 'STOPPING'",
            (node_key,),
        )
        return [
            AttemptRef(task_key=TaskKey(row[0]), index=row[1], attempt=row[2], fence=Fence(row[3]))
            for row in rows
        ]

    def detached_attempts(self, node_key: NodeKey) -> list[DetachedAttempt]:
        rows = self._db.execute(
            "SELECT a.task_key, a.idx, a.attempt, a.fence, a.state, t.spec FROM attempts a "
            "JOIN tasks t ON t.task_key = a.task_key WHERE a.node_key = ? AND a.ended_at IS NULL",
            (node_key,),
        ).fetchall()
        return detached_from_rows(rows)

    def unheard_attempts(
        self, node_key: NodeKey, *, since: datetime, until: datetime, limit: int
    ) -> list[AttemptRef]:
        rows = self._db.execute(
            "SELECT task_key, idx, attempt, fence FROM attempts "
            "WHERE node_key = ? AND ended_at IS NULL AND state = 'LEASED' "
            "AND (leased_at < ? OR leased_at > ?) LIMIT ?",
            (node_key, to_us(since), to_us(until), limit),
        )
        return [
            AttemptRef(task_key=TaskKey(row[0]), index=row[1], attempt=row[2], fence=Fence(row[3]))
            for row in rows
        ]

    def adopt_attempts(self, node: NodeView, *, epoch: int) -> None:
        self._db.execute(
            # A repeated poll of the new epoch must not bring them again, so they forget their poll.
            "UPDATE attempts SET epoch = ?, poll_seq = 0, detached = 0 "
            "WHERE node_key = ? AND ended_at IS NULL",
            (epoch, node.node_key),
        )

    def keep_output_due(self, refs: Sequence[AttemptRef], *, epoch: int) -> None:
        self._db.executemany(
            "UPDATE attempts SET epoch = ? WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ?",
            [(epoch, *attempt_key(ref)) for ref in refs],
        )

    def detach_attempts(self, node_key: NodeKey) -> None:
        self._db.execute(
            "UPDATE attempts SET detached = 1 WHERE node_key = ? AND ended_at IS NULL", (node_key,)
        )

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
