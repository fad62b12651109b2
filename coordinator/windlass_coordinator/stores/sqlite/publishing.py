"""Published outputs, on SQLite."""

import sqlite3

from windlass_coordinator.core.publishing import Publication, Standing
from windlass_coordinator.stores.sql.publishing import (
    PUBLISHED,
    STANDING,
    publication_of,
    publication_row,
    standing_of,
)
from windlass_proto.model.ids import AttemptRef, TaskKey


class SqlitePublishing:
    """The part of a transaction that knows who may publish."""

    _db: sqlite3.Connection

    def standing(self, ref: AttemptRef) -> Standing | None:
        row = self._db.execute(
            STANDING + " WHERE a.task_key = ? AND a.idx = ? AND a.attempt = ?",
            (ref.task_key, ref.index, ref.attempt),
        ).fetchone()
        return None if row is None else standing_of(row)

    def published(self, task_key: TaskKey, index: int) -> Publication | None:
        row = self._db.execute(PUBLISHED + " WHERE task_key = ? AND idx = ?", (task_key, index)).fetchone()
        return None if row is None else publication_of(row, task_key, index)

    def publish(self, publication: Publication) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO published (task_key, idx, attempt, fence, manifest_digest, files, bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            publication_row(publication),
        )
