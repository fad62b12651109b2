"""Wakes those who watch a job; only the event loop's thread touches it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from windlass_coordinator.core.records import Wakes
from windlass_proto.model.ids import JobId


@dataclass(slots=True, eq=False)
class JobWatch:
    """What one watcher waits for. Who is busy misses nothing: the events stay set."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Something about the job has changed and is committed."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """It has become terminal, or is gone."""


class JobWatchers:
    """All who watch jobs through this coordinator."""

    def __init__(self) -> None:
        self._watches: dict[JobId, set[JobWatch]] = {}

    def notify(self, wakes: Wakes) -> None:
        """A commit has changed these jobs."""
        if wakes.everything:
            for watch in [watch for watches in self._watches.values() for watch in watches]:
                watch.changed.set()
        for job_id in wakes.jobs:
            for watch in self._watches.get(job_id, ()):
                watch.changed.set()
                if job_id in wakes.ended_jobs:
                    watch.ended.set()

    @contextmanager
    def watching(self, job_id: JobId) -> Iterator[JobWatch]:
        """Tells of each change while the context is open."""
        watch = JobWatch()
        watches = self._watches.setdefault(job_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                self._watches.pop(job_id, None)
