"""Tells the coordinator what happened to attempts (decision D3).

A result goes out at once when nothing queues here, because somebody may be waiting for it and the node has
nothing else to do; otherwise results wait up to 50 ms for each other, because small batches are dear. Mere
progress always waits: the result of a short command makes it superfluous. One report is under way at a time,
and it is sent until it is answered.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from windlass_agent.core.attempt_phases import PendingEvents
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.work import Work
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.events import AttemptEvent, Happening
from windlass_proto.model.ids import AttemptRef
from windlass_proto.v1 import agent_pb2 as wire

_REPORT_BYTES = 2 << 20
"""Of one report; a message of 4 MiB would be refused, however often it is sent."""

log = structlog.get_logger()


class Reporter:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        *,
        coalesce_s: float,
        most: int,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller, self._clock = channels, caller, clock
        self._coalesce_s, self._most, self._timeout_s = coalesce_s, most, timeout_s
        self._pending = PendingEvents()
        self._is_reporting = False
        self._wake = asyncio.Event()
        self._oldest_s = 0.0
        self._work: Work | None = None

    def attach(self, work: Work) -> None:
        """`work` both tells and is told: it cannot exist before the reporter."""
        self._work = work

    @property
    def has_told_all(self) -> bool:
        return not self._pending and not self._is_reporting

    def tell(self, ref: AttemptRef, what: Happening) -> None:
        if not self._pending:
            self._oldest_s = self._clock()
            self._wake.set()
        self._pending.add(ref, what)
        if self._is_urgent():
            self._wake.set()

    def drop(self, ref: AttemptRef) -> None:
        """Nothing more of it is told."""
        self._pending.drop(ref)

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost; what was not answered is told in the next one."""
        while True:
            await self._due()
            events = self._take()
            self._oldest_s = self._clock()
            self._is_reporting = True
            answered = False
            try:
                reply = await self._report(session, events)
                answered = True
            except (SessionLost, Denied):
                return
            finally:
                if not answered:
                    self._pending.put_back(events)
                self._is_reporting = False
            self._apply(events, reply)

    def _take(self) -> Sequence[AttemptEvent]:
        """What fits into one message: reasons may be long."""
        events = self._pending.take(self._most)
        while len(events) > 1 and _size(events) > _REPORT_BYTES:
            half = len(events) // 2
            self._pending.put_back(events[half:])
            events = events[:half]
        return events

    async def _report(self, session: SessionRef, events: Sequence[AttemptEvent]) -> wire.ReportReply:
        request = wire.ReportRequest(
            session=convert.session_ref_to_wire(session), tasks=convert.events_to_wire(events)
        )
        reply = await self._caller.persist(self._channels.control.Report, request, timeout_s=self._timeout_s)
        reach("agent.report.after_reply")
        return reply

    def _apply(self, events: Sequence[AttemptEvent], reply: wire.ReportReply) -> None:
        if self._work is None:
            raise RuntimeError("the reporter was never attached")
        verdicts = convert.event_verdicts_from_wire(reply.verdicts)
        for event, verdict in zip(events, verdicts, strict=True):
            self._work.answered(event, verdict)
        self._work.forget([events[position].ref for position in reply.forget])

    async def _due(self) -> None:
        while True:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
            left_s = self._coalesce_s - (self._clock() - self._oldest_s)
            if left_s <= 0 or self._is_urgent():
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _is_urgent(self) -> bool:
        if len(self._pending) >= self._most:
            return True
        return self._pending.has_result and self._work is not None and not self._work.has_queued


def _size(events: Sequence[AttemptEvent]) -> int:
    """Roughly: what is not a reason takes less than a hundred bytes."""
    return sum(100 + 4 * len(getattr(event.what, "reason", "")) for event in events)
