"""Calls with any bytes as their request, past everything that a client would check or shape."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from tests.support.world import World
from windlass_proto.v1 import agent_pb2, clusters_pb2, jobs_pb2, secrets_pb2

Metadata = Sequence[tuple[str, str]]
DEADLINE_S = 30.0
_CLIENTS_OWN = "Internal error from Core"
"""What the client library says when the answer came while it was still sending: no word of the server's."""


class _NotTold(Exception):
    """How the server has ended the call was lost here."""


def methods() -> list[tuple[str, bool, bool]]:
    """The path of every method of ours, and whether requests and replies of it are streams."""
    return [
        (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
        for file in (jobs_pb2, agent_pb2, clusters_pb2, secrets_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


class RawCalls:
    """One connection."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata: Metadata = (("authorization", f"Bearer {token}"),)

    async def ask(self, path: str, request: bytes, *, metadata: Metadata | None = None) -> bytes:
        """The reply of a method without streams; raises AioRpcError."""
        call = self._channel.unary_unary(path)
        return bytes(
            await call(request, metadata=self._metadata if metadata is None else metadata, timeout=DEADLINE_S)
        )

    async def code_of(self, path: str, request: bytes, *, streams: tuple[bool, bool]) -> grpc.StatusCode:
        """How a call ends; one that goes on is cancelled after its first reply."""
        while True:
            try:
                return await self._code_of(path, request, streams=streams)
            except _NotTold:
                continue

    async def _code_of(self, path: str, request: bytes, *, streams: tuple[bool, bool]) -> grpc.StatusCode:
        form = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, True): self._channel.stream_stream,
        }[streams]
        given = iter([request]) if streams[0] else request
        call = form(path)(given, metadata=self._metadata, timeout=DEADLINE_S)
        try:
            if streams[1]:
                async with asyncio.timeout(0.2):
                    await call.read()
            else:
                await call
        except grpc.aio.AioRpcError as refused:
            if refused.details() == _CLIENTS_OWN:
                raise _NotTold from refused
            return refused.code()
        except TimeoutError:
            pass
        call.cancel()
        return grpc.StatusCode.OK


@asynccontextmanager
async def raw_calls(world: World, *, token: str = "") -> AsyncIterator[RawCalls]:
    """As an admin, or with another token."""
    options = (("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 64 << 20))
    async with grpc.aio.insecure_channel(world.coordinator.address, options=options) as channel:
        yield RawCalls(channel, token or world.coordinator.token_file.read_text().strip())
