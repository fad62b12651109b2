"""Forget what has been kept long enough: whole jobs, oldest first, and old facts.

A job is hidden from its users in the transaction that begins its removal, so nobody ever sees half of one;
its rows go in portions, so that no transaction is long. Its logs go after the commit. A crash in between
leaves rows of a hidden job, or a folder of logs without a job: the next sweep finds both.
"""

from dataclasses import dataclass
from datetime import datetime

from windlass_coordinator.core.records import JobKey
from windlass_coordinator.core.retention import RetentionPolicy, is_over
from windlass_coordinator.stores.base import Transaction
from windlass_proto.failpoints import reach
from windlass_proto.model.ids import JobId

ROWS_PER_STEP = 2_000
"""A few milliseconds of the writer's time."""
JOBS_LOOKED_AT_PER_STEP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What one step removed."""

    jobs: list[JobId]
    rows: int
    go_on_after: JobKey | None
    """None = every job has been looked at."""


def forget_jobs(
    tx: Transaction,
    policy: RetentionPolicy,
    *,
    after: JobKey,
    now: datetime,
    rows_max: int = ROWS_PER_STEP,
) -> Forgotten:
    """One step: looks at the jobs behind `after`, removes up to about `rows_max` rows."""
    ended, following = tx.ended_jobs(after=after, limit=JOBS_LOOKED_AT_PER_STEP)
    gone: list[JobId] = []
    rows, last = 0, after
    for job in ended:
        if not is_over(job, policy, now=now):
            continue
        if rows >= rows_max:
            following = last
            break
        if job.deleted_at is None:
            tx.delete_job(job.job_key, now=now)
        removed, is_gone = tx.remove_job_rows(job.job_key, limit=rows_max - rows)
        rows += removed
        if not is_gone:
            following = last
            break
        gone.append(job.job_id)
        last = job.job_key
    tx.wakes.deleted_jobs |= set(gone)
    reach("coord.retain.before_commit")
    return Forgotten(jobs=gone, rows=rows, go_on_after=following)
