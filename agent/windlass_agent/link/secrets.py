"""Asks for the secrets that an attempt's task names, while the attempt is this node's."""

from collections.abc import Sequence

from windlass_agent.link.channel import Channels
from windlass_agent.link.current_session import CurrentSession
from windlass_proto import convert
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.secrets import OpenedSecret
from windlass_proto.v1 import agent_pb2 as wire


class SecretFetcher:
    def __init__(self, channels: Channels, current: CurrentSession) -> None:
        self._channels, self._current = channels, current

    async def fetch(self, ref: AttemptRef) -> Sequence[OpenedSecret]:
        """Those that exist. Raises Denied when the attempt is not this node's any more."""

        def request_in(session: SessionRef) -> wire.FetchSecretsRequest:
            return wire.FetchSecretsRequest(
                session=convert.session_ref_to_wire(session), ref=convert.attempt_ref_to_wire(ref)
            )

        reply = await self._current.ask(self._channels.control.FetchSecrets, request_in)
        return [convert.opened_secret_from_wire(secret) for secret in reply.secrets]
