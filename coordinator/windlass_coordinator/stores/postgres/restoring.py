"""Going on from a backup, on PostgreSQL."""

from datetime import datetime

from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.times import to_us

# Keys and epochs of an incarnation begin here: 2**32 of them until the next one, below 2**55 in all.
_KEY_BITS = 32

_NUMBERED = (("jobs", "job_key"), ("tasks", "task_key"), ("facts", "seq"))


class PostgresRestoring(PostgresLocks):
    """The part of a transaction that begins an incarnation."""

    def begin_incarnation(self, incarnation: int, *, now: datetime) -> None:
        first_key = incarnation << _KEY_BITS
        self._change("UPDATE meta SET value = $1 WHERE key = 'incarnation'", str(incarnation))
        self._change(
            "INSERT INTO meta (key, value) VALUES ('restored_at', $1) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            str(to_us(now)),
        )
        self._change(
            "UPDATE nodes SET nonce = '', last_nonce = '', epoch = greatest(epoch, $1) WHERE epoch > 0",
            first_key,
        )
        self._change("UPDATE credentials SET revoked = 1 WHERE uses_left IS NOT NULL")
        for table, key in _NUMBERED:
            self._rows("SELECT setval(pg_get_serial_sequence($1, $2), $3)", table, key, first_key)
        self._incarnation = incarnation

    def count_jobs(self) -> int:
        row = self._row("SELECT count(*) FROM jobs WHERE deleted_at IS NULL")
        return int(row[0])
