"""Shows the coordinator that the node lives, which renews all its attempts, and obeys what comes back."""

import asyncio
import random
from collections.abc import Callable

import structlog

from windlass_agent.core.intake import Intake
from windlass_agent.core.quiet import LOOKS_PER_INTERVAL, QuietState, may_leave_out
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.link.work import Work
from windlass_agent.node.usage import Usage
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost, Unavailable
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.ids import AttemptRef
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
        watch: LeaseWatch,
        *,
        usage: Callable[[], Usage],
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller, self._work, self._intake = channels, caller, work, intake
        self._watch, self._usage, self._clock = watch, usage, clock
        self._seq = 0
        self._failures = 0
        self._has_told_expiry = False
        self._told_trouble: tuple[str, int] | None = None
        """What keeps the node from its work, as the coordinator has it; None = nobody knows."""
        self._answered_at_s = 0.0
        self._audit: list[AttemptRef] = []
        """Attempts that the coordinator asked for in its last reply."""

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost."""
        self._seq = 0
        self._audit.clear()
        self._told_trouble = None
        while True:
            await self._until_due()
            try:
                await self._beat(session)
            except (SessionLost, Denied):
                return

    async def _until_due(self) -> None:
        """The usual pause; for a quiet node until there is a reason (`core.quiet`)."""
        pause_s = self._watch.lease.pause_s(jitter=random.random())
        await asyncio.sleep(pause_s)
        while True:
            if not may_leave_out(self._quiet_state()):
                return
            await asyncio.sleep(pause_s / LOOKS_PER_INTERVAL)

    def _quiet_state(self) -> QuietState:
        return QuietState(
            timing=self._watch.timing.quiet,
            is_empty=self._work.is_empty,
            is_answered=not self._caller.hears_nothing,
            is_leased=not self._watch.is_expired,
            has_news=bool(self._audit) or self._trouble() != self._told_trouble,
            silent_for_s=self._clock() - self._answered_at_s,
        )

    def _trouble(self) -> tuple[str, int]:
        return self._intake.why_closed, self._work.stuck_slots

    async def _beat(self, session: SessionRef) -> None:
        """One heartbeat, tried again until it is answered."""
        self._seq += 1
        while True:
            trouble, request = self._trouble(), self._request(session)
            sent_at_s = self._clock()
            try:
                reply = await self._caller.lifeline(
                    self._channels.control.Heartbeat,
                    request,
                    timeout_s=self._watch.lease.call_deadline_s(),
                )
            except Unavailable as problem:
                self._failures += 1
                self._complain(str(problem))
                await self._caller.pause(self._failures, problem)
                continue
            self._failures = 0
            self._watch.renewed(self._work, convert.timing_from_wire(reply.timing), sent_at_s=sent_at_s)
            self._told_trouble, self._answered_at_s = trouble, self._clock()
            self._apply(reply)
            return

    def _request(self, session: SessionRef) -> wire.HeartbeatRequest:
        usage = self._usage()
        # Looked up now, not when it was asked: what was on its way then has arrived.
        missing = self._work.lacks(self._audit)
        return wire.HeartbeatRequest(
            session=convert.session_ref_to_wire(session),
            hb_seq=self._seq,
            missing=[convert.attempt_ref_to_wire(ref) for ref in missing],
            ended=[convert.attempt_ref_to_wire(ref) for ref in self._work.deletable(_ENDED_MOST)],
            pressure=wire.Pressure(
                load1=usage.load1,
                memory_available_bytes=usage.memory_available_bytes,
                disk_free_bytes=usage.disk_free_bytes,
                running=self._work.running,
                stuck_slots=self._work.stuck_slots,
                takes_no_work=self._intake.why_closed,
            ),
        )

    def _apply(self, reply: wire.HeartbeatReply) -> None:
        self._audit = [convert.attempt_ref_from_wire(ref) for ref in reply.audit]
        if reply.stops:
            self._work.stop([convert.attempt_ref_from_wire(ref) for ref in reply.stops])
        if reply.forgets:
            self._work.forget([convert.attempt_ref_from_wire(ref) for ref in reply.forgets])

    def _complain(self, reason: str) -> None:
        """An expired lease ends no command by itself; what has not started may be elsewhere."""
        is_expired = self._watch.is_expired
        if is_expired:
            self._work.suspend()
        if self._failures == 1 or is_expired != self._has_told_expiry:
            self._has_told_expiry = is_expired
            log.warning("heartbeat.failed", reason=reason, failures=self._failures, lease_expired=is_expired)
