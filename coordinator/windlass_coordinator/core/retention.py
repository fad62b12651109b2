"""How long what has ended is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from windlass_coordinator.core.records import JobKey
from windlass_proto.model.ids import JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Not given = kept for ever."""

    finished_jobs: timedelta | None = timedelta(days=30)
    """From their end; with them go their attempts, logs and idempotency keys."""
    deleted_jobs: timedelta | None = timedelta(days=1)
    """Long enough for late reports of their attempts to be recognised."""
    facts: timedelta | None = timedelta(days=30)
    sweep_every: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job that nothing will happen to any more, unless its user restarts it."""

    job_key: JobKey
    job_id: JobId
    ended_at: datetime | None
    """None = deleted before it had an end of its own on record."""
    deleted_at: datetime | None


def is_over(job: EndedJob, policy: RetentionPolicy, *, now: datetime) -> bool:
    """Whether it has been kept long enough, as a deleted job or as one that has ended."""
    return _is_past(job.deleted_at, policy.deleted_jobs, now) or _is_past(
        job.ended_at, policy.finished_jobs, now
    )


def _is_past(since: datetime | None, kept: timedelta | None, now: datetime) -> bool:
    return since is not None and kept is not None and since + kept <= now
