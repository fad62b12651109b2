"""What a store must do to forget what is old; a part of `base.Transaction`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from windlass_coordinator.core.records import JobKey
from windlass_coordinator.core.retention import EndedJob
from windlass_proto.model.ids import JobId


class RetentionRecords(Protocol):
    """Small steps, so that no transaction that removes is long."""

    def ended_jobs(self, *, after: JobKey, limit: int) -> tuple[list[EndedJob], JobKey | None]:
        """The terminal and deleted ones among the `limit` jobs whose keys follow `after`, and where to go on;
        None = that was the last. The newest job of all is never among them: it holds the place of its keys,
        which would be given out again without it."""

    def remove_job_rows(self, job_key: JobKey, *, limit: int) -> tuple[int, bool]:
        """Removes up to about `limit` rows of a deleted job: attempts and instances first, the job and its
        idempotency key last. Returns how many, and whether nothing of it is left."""

    def remove_facts(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest facts, as far as they are older than `before`; returns how many."""

    def unknown_jobs(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Those of which users see nothing: deleted, removed, or never known."""
