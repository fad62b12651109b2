"""The node's lease as the agent sees it, and whether the agent has slept through its end (promise P13).

A process that was stopped (SIGSTOP, a frozen machine) goes on where it was, with reports and log pieces in
hand that may be revoked meanwhile. So every call asks here first, and after such a pause none is made but
OpenSession, whose answer says what may go on.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import structlog

from windlass_agent.core.lease_clock import LeaseClock
from windlass_agent.core.run_plan import Lease
from windlass_proto.errors import SessionLost
from windlass_proto.model.assignments import Timing

_TICK_S = 0.25
_NAP_S = 1.0
"""Between two ticks: a busy event loop is late by less, unless the machine is hopelessly overloaded."""

log = structlog.get_logger()


class Leased(Protocol):
    """What depends on the lease; `Work` is."""

    def renew_lease(self, lease: Lease) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...


class LeaseWatch:
    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lease: LeaseClock | None = None
        self._timing: Timing | None = None
        self._seen_s = clock()
        self._has_overslept = False

    @property
    def lease(self) -> LeaseClock:
        if self._lease is None:
            raise SessionLost("there is no session")
        return self._lease

    @property
    def timing(self) -> Timing:
        """What the coordinator told last."""
        if self._timing is None:
            raise SessionLost("there was no session yet")
        return self._timing

    @property
    def reconnect_within(self) -> timedelta:
        """See Timing; also between sessions."""
        return self._timing.reconnect_within if self._timing is not None else timedelta(0)

    @property
    def is_expired(self) -> bool:
        return self._lease is None or self._lease.is_expired(self._clock())

    def opened(self, work: Leased, timing: Timing, *, sent_at_s: float) -> None:
        """The lease counts from the moment OpenSession was sent."""
        self._seen_s, self._has_overslept = self._clock(), False
        self._timing = timing
        self._lease = LeaseClock(
            interval_s=timing.heartbeat_interval.total_seconds(),
            lease_s=timing.lease.total_seconds(),
            renewed_at_s=sent_at_s,
        )
        self._tell(work, timing)

    def renewed(self, work: Leased, timing: Timing, *, sent_at_s: float) -> None:
        """By a heartbeat or a poll that was sent then; when that is too long ago nothing new starts."""
        before = self.lease
        self._timing = timing
        self._lease = before.acknowledged(
            sent_at_s=sent_at_s,
            interval_s=timing.heartbeat_interval.total_seconds() or before.interval_s,
            lease_s=timing.lease.total_seconds() or before.lease_s,
        )
        self._tell(work, timing)
        if self.is_expired:
            work.suspend()
        else:
            work.resume()

    def closed(self) -> None:
        self._lease = None

    def check(self) -> None:
        """Before every call of a session. Raises SessionLost."""
        if self._clock() - self._seen_s > _NAP_S and self.is_expired:
            self._has_overslept = True
        if self._has_overslept and self._lease is not None:
            raise SessionLost("the agent was stopped until its lease was over")

    async def serve(self, work: Leased) -> None:
        """Returns when the lease was slept through. When it ends otherwise, nothing new is started."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self.check()
            except SessionLost:
                log.warning("agent.overslept", for_s=round(self._clock() - self._seen_s, 1))
                return
            self._seen_s = self._clock()
            if self.is_expired:
                work.suspend()

    def _tell(self, work: Leased, timing: Timing) -> None:
        work.renew_lease(
            Lease(until_s=self.lease.expires_at_s(), kill_grace_s=timing.kill_grace.total_seconds())
        )
