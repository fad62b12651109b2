"""Gives back assignments that were never started."""

from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.work import Work
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.model.assignments import SessionRef
from windlass_proto.v1 import agent_pb2 as wire

_MOST = 1000
"""Attempts given back in one call."""


class Releaser:
    def __init__(self, channels: Channels, caller: Caller, work: Work, *, timeout_s: float) -> None:
        self._channels, self._caller, self._work, self._timeout_s = channels, caller, work, timeout_s

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost; what was not answered is in the next session's inventory."""
        while True:
            refs = self._work.to_release(_MOST)
            if not refs:
                self._work.release_due.clear()
                await self._work.release_due.wait()
                continue
            request = wire.ReleaseRequest(
                session=convert.session_ref_to_wire(session),
                refs=[convert.attempt_ref_to_wire(ref) for ref in refs],
            )
            try:
                reply = await self._caller.persist(
                    self._channels.control.Release, request, timeout_s=self._timeout_s
                )
            except (SessionLost, Denied):
                return
            for ref, accepted in zip(refs, reply.released, strict=True):
                self._work.released(ref, accepted=accepted)
