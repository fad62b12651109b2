"""What nodes hold, on SQLite: live attempts as sessions, silence and audits see them."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from windlass_coordinator.core.records import DetachedAttempt, HeldAttempt, NodeView
from windlass_coordinator.stores.sql.detached import detached_from_rows
from windlass_coordinator.stores.sql.rows import attempt_key
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState


class SqliteHeld:
    """The part of a transaction that knows which attempts a node has."""

    _db: sqlite3.Connection

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
        return [_ref(row) for row in rows]

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
        return [_ref(row) for row in rows]

    def leased_before(self, node: NodeView, *, poll_seq: int) -> list[AttemptRef]:
        rows = self._db.execute(
            "SELECT task_key, idx, attempt, fence FROM attempts "
            "WHERE node_key = ? AND ended_at IS NULL AND state = 'LEASED' AND epoch = ? AND poll_seq < ?",
            (node.node_key, node.epoch, poll_seq),
        )
        return [_ref(row) for row in rows]

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


def _ref(row: Any) -> AttemptRef:  # a row is untyped
    return AttemptRef(task_key=TaskKey(row[0]), index=row[1], attempt=row[2], fence=Fence(row[3]))
