"""Published outputs, on PostgreSQL."""

from windlass_coordinator.core.publishing import Publication, Standing
from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.sql.publishing import (
    PUBLISHED,
    STANDING,
    publication_of,
    publication_row,
    standing_of,
)
from windlass_proto.model.ids import AttemptRef, TaskKey

_PUBLISH = """
INSERT INTO published (task_key, idx, attempt, fence, manifest_digest, files, bytes)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (task_key, idx) DO UPDATE SET attempt = excluded.attempt, fence = excluded.fence,
  manifest_digest = excluded.manifest_digest, files = excluded.files, bytes = excluded.bytes"""


class PostgresPublishing(PostgresLocks):
    """The part of a transaction that knows who may publish."""

    def standing(self, ref: AttemptRef) -> Standing | None:
        self._lock_jobs_of_tasks({ref.task_key})
        row = self._row(
            STANDING + " WHERE a.task_key = $1 AND a.idx = $2 AND a.attempt = $3",
            ref.task_key,
            ref.index,
            ref.attempt,
        )
        return None if row is None else standing_of(row)

    def published(self, task_key: TaskKey, index: int) -> Publication | None:
        row = self._row(PUBLISHED + " WHERE task_key = $1 AND idx = $2", task_key, index)
        return None if row is None else publication_of(row, task_key, index)

    def publish(self, publication: Publication) -> None:
        self._change(_PUBLISH, *publication_row(publication))
