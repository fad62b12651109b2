"""Says that the node leaves for good, so that nobody waits for it."""

import asyncio
from collections.abc import Callable

import structlog

from windlass_agent.link.channel import Caller, Channels
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import SessionRef
from windlass_proto.v1 import agent_pb2 as wire

log = structlog.get_logger()


class Leaver:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        due: asyncio.Event,
        *,
        reason: Callable[[], str],
        on_left: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._channels, self._caller, self._due = channels, caller, due
        self._reason, self._on_left, self._timeout_s = reason, on_left, timeout_s

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost; the next one tries again."""
        await self._due.wait()
        reach("agent.leave.before")
        request = wire.LeaveRequest(session=convert.session_ref_to_wire(session), reason=self._reason())
        try:
            await self._caller.persist(self._channels.control.Leave, request, timeout_s=self._timeout_s)
        except (SessionLost, Denied):
            return
        log.info("node.left", reason=self._reason())
        self._on_left()
        await asyncio.Event().wait()  # the program ends now
