"""Asks for work, by a long poll that is always parked.

A node with room parks a poll that wants work. A busy one first waits a moment, because its room comes back in
larger portions, and then parks a poll that wants nothing but commands (stops); that one is abandoned as soon
as there is room again, which loses nothing: commands come with heartbeats too.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

import structlog

from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.work import Work
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import SessionRef
from windlass_proto.v1 import agent_pb2 as wire

_PATIENCE_S = 0.1
"""How long demand may be small before a poll is sent anyway."""

_BREATH_S = 0.001
"""About what a command takes to start; the poll is parked again before a short command has ended."""

log = structlog.get_logger()


class Poller:
    def __init__(
        self, channels: Channels, caller: Caller, work: Work, *, wait: timedelta, timeout_s: float
    ) -> None:
        self._channels, self._caller, self._work = channels, caller, work
        self._wait, self._timeout_s = wait, timeout_s
        self._seq = 0
        self._refusals = 0

    async def serve(self, session: SessionRef, *, wait: timedelta) -> None:
        """Returns when the session is lost. `wait` is the coordinator's own limit of parking."""
        self._seq = 0
        limit = min(wait, self._wait) if wait > timedelta(0) else self._wait
        try:
            while True:
                want = await self._choose_want()
                reply = await self._poll(session, want, limit)
                if reply is not None:
                    await self._apply(reply)
                    await self._start_first(reply, want)
        except (SessionLost, Denied):
            return

    async def _choose_want(self) -> int:
        """What to ask for, after waiting a moment when asking now is not worth it."""
        demand = self._work.demand()
        if demand.is_urgent:
            return demand.want
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not demand.is_urgent:
                    self._work.demand_changed.clear()
                    await self._work.demand_changed.wait()
                    demand = self._work.demand()
        except TimeoutError:
            demand = self._work.demand()
        return demand.want

    async def _poll(self, session: SessionRef, want: int, wait: timedelta) -> wire.PollReply | None:
        """None when it was abandoned. A retry after a transport error has the same number."""
        self._seq += 1
        request = wire.PollRequest(
            session=convert.session_ref_to_wire(session),
            poll_seq=self._seq,
            want=want,
            wait=convert.duration_to_wire(wait),
        )
        timeout_s = wait.total_seconds() + self._timeout_s
        call = self._caller.persist(self._channels.control.Poll, request, timeout_s=timeout_s)
        if want > 0:
            return await call
        return await self._until_demand(call)

    async def _until_demand(self, call: Coroutine[None, None, wire.PollReply]) -> wire.PollReply | None:
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(_outcome(call))
            waiting = group.create_task(self._demand())
            await asyncio.wait({polling, waiting}, return_when=asyncio.FIRST_COMPLETED)
            polling.cancel()
            waiting.cancel()
        if polling.cancelled():
            return None
        outcome = polling.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _demand(self) -> None:
        while not self._work.demand().is_urgent:
            self._work.demand_changed.clear()
            await self._work.demand_changed.wait()

    async def _start_first(self, reply: wire.PollReply, want: int) -> None:
        """What has come goes to the keepers before the next poll takes the processor from them.

        When less came than was asked for there is no more to get, and no hurry.
        """
        came = sum(len(batch.index) for batch in reply.batches)
        await asyncio.sleep(_BREATH_S if 0 < came < want else 0.0)

    async def _apply(self, reply: wire.PollReply) -> None:
        if reply.batches:
            self._work.accept([convert.assignment_batch_from_wire(batch) for batch in reply.batches])
            reach("agent.poll.after_accept")
        if reply.stops:
            self._work.stop([convert.attempt_ref_from_wire(ref) for ref in reply.stops])
        self._refusals = self._refusals + 1 if reply.go_away else 0
        if reply.go_away:
            log.info("coordinator.leaving")
            await self._caller.pause(self._refusals)


async def _outcome(call: Coroutine[None, None, wire.PollReply]) -> wire.PollReply | SessionLost | Denied:
    """A lost session is expected: as an exception it would count as a bug in the group."""
    try:
        return await call
    except (SessionLost, Denied) as problem:
        return problem
