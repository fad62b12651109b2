"""Reports on SQLite: attempts end, instances and counters follow."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.records import (
    AttemptView,
    TaskBump,
    TaskView,
)
from windlass_coordinator.stores.base import AttemptEnd, InstanceChange
from windlass_coordinator.stores.sql.rows import (
    TASK_COLUMNS,
    attempt_key,
    attempt_view,
    end_fields,
    exit_fields,
    taken_down,
    task_view,
)
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.events import Exited
from windlass_proto.model.ids import AttemptRef, TaskKey
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

    def nodes_taken_down(self, ref: AttemptRef, *, last: int) -> int:
        row = self._db.execute(_TAKEN_DOWN, (ref.task_key, ref.index, ref.attempt, last)).fetchone()
        return int(row[0])
