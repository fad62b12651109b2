"""Asks the coordinator whether outputs may be published, and tells whether the node's lease still holds.

An attempt may be at its uploads for hours, through many sessions; the question is asked in whichever is open.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from windlass_agent.core.output_gate import Grant, LeaseOver, Wish
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.current_session import CurrentSession
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_proto import convert
from windlass_proto.errors import Denied, InvalidRequest, SessionLost
from windlass_proto.model.assignments import SessionRef
from windlass_proto.v1 import agent_pb2 as wire

_LOOK_S = 0.2
_MARGIN = 0.25
"""Of a lease that has less left nothing is begun: a request takes its time."""


class CoordinatorGate:
    """Implements `core.output_gate.OutputGate`."""

    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        watch: LeaseWatch,
        *,
        current: CurrentSession,
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller, self._watch = channels, caller, watch
        self._current, self._clock = current, clock

    def check(self) -> None:
        try:
            lease = self._watch.lease
        except SessionLost as problem:
            raise LeaseOver("the node has no session with the coordinator") from problem
        if lease.expires_at_s() - self._clock() < lease.lease_s * _MARGIN:
            raise LeaseOver("the coordinator has not been heard for too long")

    async def held(self) -> None:
        while True:
            try:
                self.check()
            except LeaseOver:
                await asyncio.sleep(_LOOK_S)
            else:
                return

    async def commit(self, wish: Wish) -> Grant:
        failures = 0
        while True:
            await self.held()
            try:
                reply = await self._current.ask(
                    self._channels.control.CommitOutputs, partial(_request, wish=wish)
                )
            except Denied:
                # Whether the attempt goes on is for the next session to say.
                await asyncio.sleep(_LOOK_S)
                continue
            except InvalidRequest as problem:
                return Grant(granted=False, reason=str(problem))
            if not reply.not_yet:
                return Grant(granted=reply.granted, reason=reply.reason, supersedes=reply.supersedes)
            failures += 1
            await self._caller.pause(failures)


def _request(session: SessionRef, wish: Wish) -> wire.CommitOutputsRequest:
    return wire.CommitOutputsRequest(
        session=convert.session_ref_to_wire(session),
        ref=convert.attempt_ref_to_wire(wish.ref),
        manifest_digest=wish.manifest_digest,
        files=wish.files,
        bytes=wish.size_bytes,
        of_failed_command=wish.of_failed_command,
    )
