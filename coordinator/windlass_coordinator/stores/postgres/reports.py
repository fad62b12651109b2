"""Reports on PostgreSQL: attempts end, instances and counters follow."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.records import (
    AttemptView,
    DetachedAttempt,
    HeldAttempt,
    NodeView,
    TaskBump,
    TaskView,
)
from windlass_coordinator.stores.base import AttemptEnd, InstanceChange
from windlass_coordinator.stores.postgres.arrays import int_columns, ints, texts
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.detached import detached_from_rows
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
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState, InstanceState, TaskState

_VIEWS = """
SELECT a.task_key, a.idx, a.attempt, a.fence, a.state, a.node_key, a.failure, a.exit_code, a.exit_signal
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) r(task_key, idx, attempt)
JOIN attempts a ON a.task_key = r.task_key AND a.idx = r.idx AND a.attempt = r.attempt"""

_LIVE = "a.task_key = r.task_key AND a.idx = r.idx AND a.attempt = r.attempt AND a.fence = r.fence"

_IMAGES = f"""
UPDATE attempts a SET image_digest = r.image_digest
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
  r(task_key, idx, attempt, fence, image_digest)
WHERE {_LIVE} AND a.image_digest IS NULL"""

_PROGRESS = f"""
UPDATE attempts a SET state = r.state, started_at = coalesce(a.started_at, r.started_at)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[])
  r(task_key, idx, attempt, fence, state, started_at)
WHERE {_LIVE} AND a.ended_at IS NULL"""

_KEEP_OUTPUT_DUE = f"""
UPDATE attempts a SET epoch = $5
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) r(task_key, idx, attempt, fence)
WHERE {_LIVE}"""

_EXIT_ARRAYS = ", ".join(f"${number}::bigint[]" for number in range(5, 14))
_EXIT_COLUMNS = (
    "started_at, exit_code, exit_signal, ran_for_us, user_cpu_us, system_cpu_us, peak_memory_bytes, "
    "stdout_end, stderr_end"
)

# greatest() passes over NULL: without an exit record nobody knows when it began.
_STARTED = """
started_at = coalesce(a.started_at,
    CASE WHEN r.started_at IS NULL THEN NULL ELSE greatest(a.leased_at, r.started_at) END)"""

_EXITED = f"""
UPDATE attempts a SET state = 'FINALIZING', {_STARTED}, exit_code = r.exit_code, exit_signal = r.exit_signal,
  ran_for_us = r.ran_for_us, user_cpu_us = r.user_cpu_us, system_cpu_us = r.system_cpu_us,
  peak_memory_bytes = r.peak_memory_bytes, stdout_end = r.stdout_end, stderr_end = r.stderr_end
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], {_EXIT_ARRAYS})
  r(task_key, idx, attempt, fence, {_EXIT_COLUMNS})
WHERE {_LIVE} AND a.ended_at IS NULL"""

_END = f"""
UPDATE attempts a SET state = r.state, ended_at = $17, {_STARTED}, failure = r.failure, reason = r.reason,
  exit_code = coalesce(r.exit_code, a.exit_code), exit_signal = coalesce(r.exit_signal, a.exit_signal),
  ran_for_us = coalesce(r.ran_for_us, a.ran_for_us), user_cpu_us = coalesce(r.user_cpu_us, a.user_cpu_us),
  system_cpu_us = coalesce(r.system_cpu_us, a.system_cpu_us),
  peak_memory_bytes = coalesce(r.peak_memory_bytes, a.peak_memory_bytes),
  stdout_end = coalesce(r.stdout_end, a.stdout_end), stderr_end = coalesce(r.stderr_end, a.stderr_end)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], {_EXIT_ARRAYS},
    $14::text[], $15::text[], $16::text[])
  r(task_key, idx, attempt, fence, {_EXIT_COLUMNS}, state, failure, reason)
WHERE {_LIVE} AND a.ended_at IS NULL"""

_CHANGE = """
UPDATE instances i SET state = r.state
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) r(task_key, idx, state)
WHERE i.task_key = r.task_key AND i.idx = r.idx"""

_CHANGE_FURTHER = """
UPDATE instances i SET state = r.state, user_failures = coalesce(r.user_failures, i.user_failures),
  infra_failures = coalesce(r.infra_failures, i.infra_failures), due_at = r.due_at,
  fence = CASE WHEN r.raised = 1 THEN greatest(i.fence, $9) + 1 ELSE i.fence END,
  avoid_node = CASE WHEN r.avoids = 1 THEN (SELECT a.node_key FROM attempts a
    WHERE a.task_key = i.task_key AND a.idx = i.idx AND a.attempt = i.attempt) END
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[])
  r(task_key, idx, state, user_failures, infra_failures, due_at, raised, avoids)
WHERE i.task_key = r.task_key AND i.idx = r.idx"""

_READY_AGAIN = "INSERT INTO ready_again (task_key, idx) SELECT * FROM unnest($1::bigint[], $2::bigint[])"

_TASKS = f"SELECT {TASK_COLUMNS} FROM tasks WHERE task_key = ANY($1::bigint[])"

_BUMP = """
UPDATE tasks SET active = tasks.active + r.active, ready_again = tasks.ready_again + r.ready_again,
  retry_wait = tasks.retry_wait + r.retry_wait, succeeded = tasks.succeeded + r.succeeded,
  failed = tasks.failed + r.failed, stopped = tasks.stopped + r.stopped, state = r.state,
  has_work = (r.state IN ('READY', 'RUNNING')
              AND (next_index < instance_count OR tasks.ready_again + r.ready_again > 0))::int,
  ended_at = r.ended_at
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::text[], $9::bigint[])
  r(task_key, active, ready_again, retry_wait, succeeded, failed, stopped, state, ended_at)
WHERE tasks.task_key = r.task_key"""

_HELD = """
SELECT task_key, idx, attempt, fence, state FROM attempts WHERE node_key = $1 AND ended_at IS NULL"""

_DETACHED = """
SELECT a.task_key, a.idx, a.attempt, a.fence, a.state, t.spec FROM attempts a
JOIN tasks t ON t.task_key = a.task_key WHERE a.node_key = $1 AND a.ended_at IS NULL"""

_UNHEARD = """
SELECT task_key, idx, attempt, fence FROM attempts
WHERE node_key = $1 AND ended_at IS NULL AND state = 'LEASED' AND (leased_at < $2 OR leased_at > $3)
LIMIT $4"""

_TAKEN_DOWN = taken_down("$1", "$2", "$3", "$4")


class PostgresReports(PostgresLocks):
    """The reporting part of a transaction."""

    def attempt_views(self, refs: Sequence[AttemptRef]) -> dict[tuple[TaskKey, int, int], AttemptView]:
        if not refs:
            return {}
        self._lock_jobs_of_attempts(refs)
        rows = self._rows(_VIEWS, *int_columns([(ref.task_key, ref.index, ref.attempt) for ref in refs]))
        return {(row[0], row[1], row[2]): attempt_view(row[1:]) for row in rows}

    def failure_counts(self, task_key: TaskKey, index: int) -> tuple[int, int]:
        row = self._row(
            "SELECT user_failures, infra_failures FROM instances WHERE task_key = $1 AND idx = $2",
            task_key,
            index,
        )
        return (row[0], row[1])

    def progress_attempts(self, changes: Sequence[tuple[AttemptRef, AttemptState]], *, now: datetime) -> None:
        at = to_us(now)
        keys = int_columns([attempt_key(ref) for ref, _ in changes])
        states = texts(state for _, state in changes)
        started = ints(at if state is AttemptState.RUNNING else None for _, state in changes)
        self._change(_PROGRESS, *keys, states, started)

    def note_images(self, images: Sequence[tuple[AttemptRef, str]]) -> None:
        keys = int_columns([attempt_key(ref) for ref, _ in images])
        self._change(_IMAGES, *keys, texts(digest for _, digest in images))

    def record_exits(self, exits: Sequence[tuple[AttemptRef, Exited]], *, now: datetime) -> None:
        at = to_us(now)
        rows = [(*attempt_key(ref), at - what.ran_for_us, *exit_fields(what)) for ref, what in exits]
        self._change(_EXITED, *int_columns(rows))

    def end_attempts(self, ends: Sequence[AttemptEnd], *, now: datetime) -> None:
        at = to_us(now)
        rows = [
            (
                *attempt_key(end.ref),
                None if end.exit is None else at - end.exit.ran_for_us,
                *end_fields(end),
            )
            for end in ends
        ]
        self._change(
            _END,
            *int_columns(rows),
            texts(end.state for end in ends),
            texts(end.failure for end in ends),
            texts(end.reason or None for end in ends),
            at,
        )

    def change_instances(self, changes: Sequence[InstanceChange]) -> None:
        plain: list[InstanceChange] = []
        others: list[InstanceChange] = []
        for c in changes:
            # Nearly all: the instance has ended and nothing but its state changes.
            is_plain = c.state.is_terminal and c.user_failures is None and not c.raise_fence
            (plain if is_plain else others).append(c)
        if plain:
            places = int_columns([(c.task_key, c.index) for c in plain])
            self._change(_CHANGE, *places, texts(c.state for c in plain))
        if others:
            self._change_further(others)

    def _change_further(self, others: list[InstanceChange]) -> None:
        self._change(
            _CHANGE_FURTHER,
            *int_columns([(c.task_key, c.index) for c in others]),
            texts(c.state for c in others),
            ints(c.user_failures for c in others),
            ints(c.infra_failures for c in others),
            ints(None if c.due_at is None else to_us(c.due_at) for c in others),
            ints(c.raise_fence for c in others),
            ints(c.avoid_node for c in others),
            fence_floor(self._incarnation),
        )
        ready = [(c.task_key, c.index) for c in others if c.state is InstanceState.READY]
        if ready:
            self._change(_READY_AGAIN, *int_columns(ready))

    def task_views(self, keys: Collection[TaskKey]) -> dict[TaskKey, TaskView]:
        if not keys:
            return {}
        views = self._task_views(keys)
        if not all(view.job_key in self._jobs for view in views.values()):
            self._lock_jobs_of_tasks(keys)
            views = self._task_views(keys)
        return views

    def _task_views(self, keys: Collection[TaskKey]) -> dict[TaskKey, TaskView]:
        return {row[0]: task_view(row) for row in self._rows(_TASKS, ints(keys))}

    def bump_tasks(
        self,
        bumps: Mapping[TaskKey, tuple[TaskBump, TaskState]],
        *,
        ended: Collection[TaskKey],
        now: datetime,
    ) -> None:
        at = to_us(now)
        counters = [
            (key, b.active, b.ready_again, b.retry_wait, b.succeeded, b.failed, b.stopped)
            for key, (b, _) in bumps.items()
        ]
        self._change(
            _BUMP,
            *int_columns(counters),
            texts(state for _, state in bumps.values()),
            ints(at if key in ended else None for key in bumps),
        )

    def held_attempts(self, node_key: NodeKey) -> list[HeldAttempt]:
        self._lock_node_and_its_jobs(node_key)
        return [
            HeldAttempt(
                task_key=TaskKey(row[0]),
                index=row[1],
                attempt=row[2],
                fence=Fence(row[3]),
                state=AttemptState(row[4]),
            )
            for row in self._rows(_HELD, node_key)
        ]

    def stopping_attempts(self, node_key: NodeKey) -> list[AttemptRef]:
        rows = self._rows(
            "SELECT task_key, idx, attempt, fence FROM attempts WHERE node_key = $1 AND state = 'STOPPING'",
            node_key,
        )
        return [_ref(row) for row in rows]

    def detached_attempts(self, node_key: NodeKey) -> list[DetachedAttempt]:
        self._lock_node_and_its_jobs(node_key)
        return detached_from_rows(self._rows(_DETACHED, node_key))

    def unheard_attempts(
        self, node_key: NodeKey, *, since: datetime, until: datetime, limit: int
    ) -> list[AttemptRef]:
        return [_ref(row) for row in self._rows(_UNHEARD, node_key, to_us(since), to_us(until), limit)]

    def leased_before(self, node: NodeView, *, poll_seq: int) -> list[AttemptRef]:
        rows = self._rows(
            "SELECT task_key, idx, attempt, fence FROM attempts "
            "WHERE node_key = $1 AND ended_at IS NULL AND state = 'LEASED' AND epoch = $2 AND poll_seq < $3",
            node.node_key,
            node.epoch,
            poll_seq,
        )
        return [_ref(row) for row in rows]

    def nodes_taken_down(self, ref: AttemptRef, *, last: int) -> int:
        row = self._row(_TAKEN_DOWN, ref.task_key, ref.index, ref.attempt, last)
        return int(row[0])

    def adopt_attempts(self, node: NodeView, *, epoch: int) -> None:
        self._lock_node_and_its_jobs(node.node_key)
        # A repeated poll of the new epoch must not bring them again, so they forget their poll.
        self._change(
            "UPDATE attempts SET epoch = $1, poll_seq = 0, detached = 0 "
            "WHERE node_key = $2 AND ended_at IS NULL",
            epoch,
            node.node_key,
        )

    def keep_output_due(self, refs: Sequence[AttemptRef], *, epoch: int) -> None:
        columns = int_columns([attempt_key(ref) for ref in refs])
        self._change(_KEEP_OUTPUT_DUE, *columns, epoch)

    def detach_attempts(self, node_key: NodeKey) -> None:
        self._lock_node_and_its_jobs(node_key)
        self._change("UPDATE attempts SET detached = 1 WHERE node_key = $1 AND ended_at IS NULL", node_key)


# A row is untyped: the driver knows no column types.
def _ref(row: Any) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(row[0]), index=row[1], attempt=row[2], fence=Fence(row[3]))
