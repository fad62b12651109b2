"""The duty that forgets: jobs and facts that have been kept long enough, and logs that nobody owns."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import structlog

from windlass_coordinator.core.records import JobKey
from windlass_coordinator.core.retention import RetentionPolicy
from windlass_coordinator.engine.retain import Forgotten, forget_jobs
from windlass_coordinator.logstore.base import LogStore
from windlass_coordinator.stores.base import Transaction, VerbRunner
from windlass_proto.failpoints import reach
from windlass_proto.model.ids import JobId

_log = structlog.get_logger()

_OUR_JOBS = "job-"
"""What else lies among the logs is somebody else's."""
_FOLDERS_PER_STEP = 500
_FACTS_PER_STEP = 2_000

OnRemoved = Callable[[str, int], None]
"""Counts what was removed: `jobs`, `rows`, `facts` or `orphaned_logs`."""


class RetentionDuty:
    """Sweeps once at its start, then in the policy's interval; each step is a transaction of its own."""

    def __init__(
        self, store: VerbRunner, logs: LogStore, policy: RetentionPolicy, *, on_removed: OnRemoved
    ) -> None:
        self._store = store
        self._logs = logs
        self._policy = policy
        self._on_removed = on_removed
        self._started_at, self._started_s = datetime.now(UTC), time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._policy.sweep_every.total_seconds())

    async def sweep(self) -> None:
        """Everything that is due now."""
        now = self._now()
        jobs = await self._forget_jobs(now)
        facts = await self._forget_facts(now)
        folders = await self._remove_orphaned_logs()
        if jobs or facts or folders:
            _log.info("retention.swept", jobs=jobs, facts=facts, orphaned_logs=folders)

    def _now(self) -> datetime:
        """A clock that is set forward while we run makes nothing older than it is (promise P12)."""
        ran = timedelta(seconds=time.monotonic() - self._started_s)
        return min(datetime.now(UTC), self._started_at + ran)

    async def _forget_jobs(self, now: datetime) -> int:
        place: JobKey | None = JobKey(0)
        jobs = 0
        while place is not None:
            step: Forgotten = await self._store.run(
                partial(forget_jobs, policy=self._policy, after=place, now=now)
            )
            reach("coord.retain.after_commit")
            self._on_removed("jobs", len(step.jobs))
            self._on_removed("rows", step.rows)
            jobs, place = jobs + len(step.jobs), step.go_on_after
        return jobs

    async def _forget_facts(self, now: datetime) -> int:
        if self._policy.facts is None:
            return 0
        before = now - self._policy.facts
        total, removed = 0, _FACTS_PER_STEP
        while removed == _FACTS_PER_STEP:
            removed = await self._store.run(lambda tx: tx.remove_facts(before=before, limit=_FACTS_PER_STEP))
            self._on_removed("facts", removed)
            total += removed
        return total

    async def _remove_orphaned_logs(self) -> int:
        """What a crash between a job's removal and that of its logs has left behind."""
        found = await asyncio.to_thread(self._logs.job_ids)
        folders = iter([job_id for job_id in found if job_id.startswith(_OUR_JOBS)])
        total = 0
        while step := list(islice(folders, _FOLDERS_PER_STEP)):
            unknown = await self._store.run(partial(_unknown, job_ids=step))
            for job_id in unknown:
                await asyncio.to_thread(self._logs.delete_job, job_id)
            self._on_removed("orphaned_logs", len(unknown))
            total += len(unknown)
        return total


def _unknown(tx: Transaction, job_ids: list[JobId]) -> list[JobId]:
    return tx.unknown_jobs(job_ids)
