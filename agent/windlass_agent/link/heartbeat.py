"""Shows the coordinator that the node lives, which renews all its attempts, and obeys what comes back."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog

from windlass_agent.core.intake import Intake
from windlass_agent.core.lease_clock import LeaseClock
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.work import Work
from windlass_agent.node.usage import read_usage
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost, Unavailable
from windlass_proto.model.assignments import SessionRef, Timing
from windlass_proto.v1 import agent_pb2 as wire

_ENDED_MOST = 20_000
"""Ended attempts named in one heartbeat; short commands end by the thousand. The next one names the rest."""

log = structlog.get_logger()


class Heartbeat:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        work: Work,
        intake: Intake,
        *,
        state_dir: Path,
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller, self._work, self._intake = channels, caller, work, intake
        self._state_dir, self._clock = state_dir, clock
        self._seq = 0
        self._failures = 0

    async def serve(self, session: SessionRef, *, timing: Timing, opened_at_s: float) -> None:
        """Returns when the session is lost. The lease counts from `opened_at_s`: OpenSession was sent."""
        lease = LeaseClock(
            interval_s=timing.heartbeat_interval.total_seconds(),
            lease_s=timing.lease.total_seconds(),
            renewed_at_s=opened_at_s,
        )
        self._seq = 0
        while True:
            await asyncio.sleep(lease.pause_s(jitter=random.random()))
            try:
                lease = await self._beat(session, lease)
            except (SessionLost, Denied):
                return

    async def _beat(self, session: SessionRef, lease: LeaseClock) -> LeaseClock:
        """One heartbeat, tried again until it is answered."""
        self._seq += 1
        while True:
            request = await self._request(session)
            sent_at_s = self._clock()
            try:
                reply = await self._caller.once(
                    self._channels.control.Heartbeat, request, timeout_s=lease.call_deadline_s()
                )
            except Unavailable as problem:
                self._failures += 1
                self._complain(lease, str(problem))
                await self._caller.pause(self._failures)
                continue
            self._failures = 0
            self._work.resume()
            self._apply(reply)
            timing = convert.timing_from_wire(reply.timing)
            return lease.acknowledged(
                sent_at_s=sent_at_s,
                interval_s=_or(timing.heartbeat_interval, lease.interval_s),
                lease_s=_or(timing.lease, lease.lease_s),
            )

    async def _request(self, session: SessionRef) -> wire.HeartbeatRequest:
        usage = await asyncio.to_thread(read_usage, self._state_dir)
        return wire.HeartbeatRequest(
            session=convert.session_ref_to_wire(session),
            hb_seq=self._seq,
            ended=[convert.attempt_ref_to_wire(ref) for ref in self._work.deletable(_ENDED_MOST)],
            pressure=wire.Pressure(
                load1=usage.load1,
                memory_available_bytes=usage.memory_available_bytes,
                disk_free_bytes=usage.disk_free_bytes,
                running=self._work.running,
                takes_no_work=self._intake.why_closed,
            ),
        )

    def _apply(self, reply: wire.HeartbeatReply) -> None:
        if reply.stops:
            self._work.stop([convert.attempt_ref_from_wire(ref) for ref in reply.stops])
        if reply.forgets:
            self._work.forget([convert.attempt_ref_from_wire(ref) for ref in reply.forgets])

    def _complain(self, lease: LeaseClock, reason: str) -> None:
        """An expired lease ends no command (policy keep_going); what has not started may be elsewhere."""
        if lease.is_expired(self._clock()):
            self._work.suspend()
        if self._failures == 1 or lease.is_expired(self._clock()):
            log.warning(
                "heartbeat.failed",
                reason=reason,
                failures=self._failures,
                lease_expired=lease.is_expired(self._clock()),
            )


def _or(duration: timedelta, otherwise_s: float) -> float:
    return duration.total_seconds() if duration > timedelta(0) else otherwise_s
