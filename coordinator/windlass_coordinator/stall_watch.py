"""Notices that this process itself stood still: stopped, frozen with its machine, or blocked by a handler.

Meanwhile no heartbeat was taken in, so nobody's silence counts (promise P13): what was heard is taken as
heard so much later. Whoever is about to judge silence asks first: its timer may ring before the watch's own.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

TICK = timedelta(milliseconds=500)
STALLED_AFTER = timedelta(seconds=2)
"""Later than this is not the load of a moment."""

_log = structlog.get_logger()


class StallWatch:
    """Of one event loop."""

    def __init__(
        self, pardon: Callable[[timedelta], None], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`pardon` is told how long nobody could be heard."""
        self._pardon = pardon
        self._monotonic = monotonic
        self._looked_at_s = monotonic()
        self.count = 0
        self.longest_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        self._looked_at_s = self._monotonic()
        while True:
            await asyncio.sleep(TICK.total_seconds())
            self.look()

    def look(self) -> None:
        """Whether it is later than it should be since the last look."""
        now = self._monotonic()
        late_s = now - self._looked_at_s - TICK.total_seconds()
        self._looked_at_s = now
        if late_s < STALLED_AFTER.total_seconds():
            return
        self.count += 1
        self.longest_s = max(self.longest_s, late_s)
        _log.error("coordinator.stalled", stall_s=round(late_s, 3))
        self._pardon(timedelta(seconds=late_s))
