"""Asks for work, by a long poll that is always parked.

A node with room parks a poll that wants work. A busy one first waits a moment, because its room comes back in
larger portions, and then parks a poll that wants nothing but commands (stops); that one is abandoned as soon
as there is room again, which loses nothing: commands come with heartbeats too.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta

import structlog

from windlass_agent.core.intake import Intake, Obstacle
from windlass_agent.core.prefetch import Demand
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.link.work import Work
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import AssignmentBatch, SessionRef
from windlass_proto.v1 import agent_pb2 as wire

_PATIENCE_S = 0.1
"""How long demand may be small before a poll is sent anyway."""

_BREATH_S = 0.001
"""About what a command takes to start; the poll is parked again before a short command has ended."""

_NO_DEMAND = Demand(want=0, is_urgent=False)

log = structlog.get_logger()


class Poller:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        work: Work,
        intake: Intake,
        watch: LeaseWatch,
        *,
        wait: timedelta,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        """`wait` is this agent's own limit of parking."""
        self._channels, self._caller, self._work, self._intake = channels, caller, work, intake
        self._watch, self._clock = watch, clock
        self._wait, self._timeout_s = wait, timeout_s
        self._sent_at_s = 0.0
        self._seq = 0
        self._refusals = 0

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost."""
        self._seq = 0
        try:
            while True:
                want = await self._choose_want()
                reply = await self._poll(session, want)
                if reply is not None:
                    await self._apply(reply)
                    await self._start_first(reply, want)
        except (SessionLost, Denied):
            return

    async def _choose_want(self) -> int:
        """What to ask for, after waiting a moment when asking now is not worth it."""
        demand = self._demand()
        if demand.is_urgent:
            return demand.want
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not demand.is_urgent:
                    self._work.demand_changed.clear()
                    await self._work.demand_changed.wait()
                    demand = self._demand()
        except TimeoutError:
            demand = self._demand()
        return demand.want

    def _demand(self) -> Demand:
        return self._work.demand() if self._intake.is_open else _NO_DEMAND

    async def _poll(self, session: SessionRef, want: int) -> wire.PollReply | None:
        """None when it was abandoned. A retry after a transport error has the same number."""
        self._seq += 1
        is_empty = self._work.is_empty
        wait = self._longest_wait(is_empty=is_empty)
        request = wire.PollRequest(
            session=convert.session_ref_to_wire(session),
            poll_seq=self._seq,
            want=want,
            wait=convert.duration_to_wire(wait),
            is_empty=is_empty,
        )
        timeout_s = wait.total_seconds() + self._timeout_s
        call = self._caller.persist(
            self._channels.control.Poll, request, timeout_s=timeout_s, on_send=self._note_sent
        )
        if want > 0:
            return await call
        return await self._until_demand(call)

    def _note_sent(self) -> None:
        self._sent_at_s = self._clock()

    def _longest_wait(self, *, is_empty: bool) -> timedelta:
        """By the coordinator's timing and the own setting; an empty node's polls stand for heartbeats."""
        timing = self._watch.timing
        told = timing.quiet.poll_wait if timing.quiet is not None and is_empty else timing.poll_wait
        return min(told, self._wait) if told > timedelta(0) else self._wait

    async def _until_demand(self, call: Coroutine[None, None, wire.PollReply]) -> wire.PollReply | None:
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(_outcome(call))
            waiting = group.create_task(self._urgent_demand())
            await asyncio.wait({polling, waiting}, return_when=asyncio.FIRST_COMPLETED)
            polling.cancel()
            waiting.cancel()
        if polling.cancelled():
            return None
        outcome = polling.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _urgent_demand(self) -> None:
        while not self._demand().is_urgent:
            self._work.demand_changed.clear()
            await self._work.demand_changed.wait()

    async def _start_first(self, reply: wire.PollReply, want: int) -> None:
        """What has come goes to the keepers before the next poll takes the processor from them.

        When less came than was asked for there is no more to get, and no hurry.
        """
        came = sum(len(batch.index) for batch in reply.batches)
        await asyncio.sleep(_BREATH_S if 0 < came < want else 0.0)

    async def _apply(self, reply: wire.PollReply) -> None:
        self._renew_lease(reply)
        if reply.batches:
            self._take([convert.assignment_batch_from_wire(batch) for batch in reply.batches])
        if reply.stops:
            self._work.stop([convert.attempt_ref_from_wire(ref) for ref in reply.stops])
        self._refusals = self._refusals + 1 if reply.go_away else 0
        if reply.go_away:
            log.info("coordinator.leaving")
            await self._caller.pause(self._refusals)

    def _renew_lease(self, reply: wire.PollReply) -> None:
        """Before anything of it is started. Old coordinators do not take a poll for a sign of life."""
        timing = convert.timing_from_wire(reply.timing) if reply.HasField("timing") else self._watch.timing
        if timing.quiet is not None:
            self._watch.renewed(self._work, timing, sent_at_s=self._sent_at_s)

    def _take(self, batches: Sequence[AssignmentBatch]) -> None:
        """What comes although nothing is wanted any more was asked for before that."""
        if not self._intake.is_open:
            self._work.turn_down(batches)
            return
        try:
            self._work.accept(batches)
        except OSError as problem:
            if self._intake.close(Obstacle.STATE, f"assignments cannot be written down: {problem}"):
                log.error("intents.failed", reason=str(problem))
        reach("agent.poll.after_accept")


async def _outcome(call: Coroutine[None, None, wire.PollReply]) -> wire.PollReply | SessionLost | Denied:
    """A lost session is expected: as an exception it would count as a bug in the group."""
    try:
        return await call
    except (SessionLost, Denied) as problem:
        return problem
