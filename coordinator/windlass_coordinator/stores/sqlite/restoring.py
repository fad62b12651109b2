"""Going on from a backup, on SQLite."""

import sqlite3
from datetime import datetime

from windlass_coordinator.stores.sql.times import to_us

# Keys and epochs of an incarnation begin here: 2**32 of them until the next one, below 2**55 in all.
_KEY_BITS = 32

# A row id is one more than the largest there is, so rows hold the place: a job that was deleted at once.
_JOB_THAT_HOLDS_THE_PLACE = """
INSERT INTO jobs (job_key, job_id, tenant, name, state, submitted_at, ended_at, deleted_at)
VALUES (?1, 'restored-' || ?2, '', 'restored', 'STOPPED', ?3, ?3, ?3)"""

_TASK_THAT_HOLDS_THE_PLACE = """
INSERT INTO tasks (task_key, job_key, name, state, cluster_key, instance_count, spec, ended_at)
SELECT ?1, ?1, 'restored', 'STOPPED', min(cluster_key), 0, x'', ?2 FROM clusters"""


class SqliteRestoring:
    """The part of a transaction that begins an incarnation."""

    _db: sqlite3.Connection
    _incarnation: int

    def begin_incarnation(self, incarnation: int, *, now: datetime) -> None:
        first_key, at = incarnation << _KEY_BITS, to_us(now)
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'incarnation'", (str(incarnation),))
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('restored_at', ?)", (str(at),))
        self._db.execute(
            "UPDATE nodes SET nonce = '', last_nonce = '', epoch = max(epoch, ?) WHERE epoch > 0",
            (first_key,),
        )
        self._db.execute("UPDATE credentials SET revoked = 1 WHERE uses_left IS NOT NULL")
        if self._db.execute("SELECT 1 FROM clusters").fetchone() is not None:
            self._db.execute(_JOB_THAT_HOLDS_THE_PLACE, (first_key, incarnation, at))
            self._db.execute(_TASK_THAT_HOLDS_THE_PLACE, (first_key, at))
        self._db.execute("DELETE FROM sqlite_sequence WHERE name = 'facts'")
        self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('facts', ?)", (first_key,))
        # A database in memory cannot be opened again.
        self._incarnation = incarnation

    def count_jobs(self) -> int:
        row = self._db.execute("SELECT count(*) FROM jobs WHERE deleted_at IS NULL").fetchone()
        return int(row[0])
