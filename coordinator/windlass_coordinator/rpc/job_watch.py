"""Wakes those who watch a job; only the event loop's thread touches it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from windlass_proto.model.ids import JobId


class JobWatchers:
    """Events by job. A watcher that is busy misses nothing: its event stays set."""

    def __init__(self) -> None:
        self._events: dict[JobId, set[asyncio.Event]] = {}

    def notify(self, jobs: Iterable[JobId]) -> None:
        """Something about these jobs has changed and is committed."""
        for job_id in jobs:
            for event in self._events.get(job_id, ()):
                event.set()

    @contextmanager
    def watching(self, job_id: JobId) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the job."""
        event = asyncio.Event()
        events = self._events.setdefault(job_id, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events:
                self._events.pop(job_id, None)
