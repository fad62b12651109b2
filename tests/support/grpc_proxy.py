"""A proxy that passes gRPC calls on one by one, and may repeat, delay, reorder them or lose their replies.

It knows no message: requests and replies are bytes. Unary calls follow the rule of their method; streams
are passed through, or refused. A call that the client gave up is still delivered when its time comes, which
is how a late message overtakes nothing and is overtaken by others.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from windlass_proto.v1 import agent_pb2, clusters_pb2, jobs_pb2

_OPTIONS = (("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20))
_PASSED_ON = ("authorization", "windlass-error-code", "windlass-problems-bin")


def _streaming() -> frozenset[str]:
    files = (agent_pb2, clusters_pb2, jobs_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if method.client_streaming or method.server_streaming
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to the calls of a method; each is asked anew."""

    deliveries: Callable[[], int] = lambda: 1
    """How often the request arrives."""
    delay_s: Callable[[], float] = lambda: 0.0
    """Before it arrives; later calls may arrive first."""
    loses_reply: Callable[[], bool] = lambda: False
    """It arrives, but the client learns UNAVAILABLE."""
    answer: grpc.StatusCode | None = None
    """Answered with that instead of being passed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A unary call that was passed on."""

    method: str
    metadata: tuple[tuple[str, str], ...]
    request: bytes


@dataclass(slots=True, eq=False)
class GrpcProxy:
    target: str
    address: str = ""
    rules: dict[str, Rule] = field(default_factory=dict)
    """By the method's name, such as "Report"."""
    otherwise: Rule = field(default_factory=Rule)
    calls: Counter[str] = field(default_factory=Counter)
    """By the method's name, as they came in."""
    pieces: Counter[str] = field(default_factory=Counter)
    """Messages that came in on streams, by the method's name."""
    recorded: list[Recorded] = field(default_factory=list)
    _streams: frozenset[str] = field(default_factory=_streaming)
    _late: set[asyncio.Task[bytes]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _channel: grpc.aio.Channel | None = None
    _server: grpc.aio.Server | None = None

    def deliver(self, call: Recorded) -> tuple[grpc.StatusCode, str]:
        """Sends a recorded call once more; the status and its details."""
        return asyncio.run_coroutine_threadsafe(self._deliver_again(call), self._loop).result(30)

    async def _deliver_again(self, call: Recorded) -> tuple[grpc.StatusCode, str]:
        try:
            await self._forward(call)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""

    async def start(self) -> None:
        self._channel = grpc.aio.insecure_channel(self.target, options=_OPTIONS)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Everything(self),))
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        assert self._channel is not None
        await self._server.stop(0)
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._channel.close()

    def handler(self, method: str, metadata: tuple[tuple[str, str], ...]) -> grpc.RpcMethodHandler:
        if method in self._streams:

            async def stream(
                requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
            ) -> AsyncIterator[bytes]:
                assert self._channel is not None
                name = method.rpartition("/")[2]
                self.calls[name] += 1
                rule = self.rules.get(name, self.otherwise)
                if rule.answer is not None:
                    await context.abort(rule.answer, "the proxy says no")
                call = self._channel.stream_stream(method)(self._counted(name, requests), metadata=metadata)
                try:
                    async for reply in call:
                        yield reply
                finally:
                    call.cancel()

            return grpc.stream_stream_rpc_method_handler(stream)

        async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await self._serve(Recorded(method=method, metadata=metadata, request=request), context)

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _counted(self, name: str, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            self.pieces[name] += 1
            yield request

    async def _serve(self, call: Recorded, context: grpc.aio.ServicerContext) -> bytes:
        name = call.method.rpartition("/")[2]
        self.calls[name] += 1
        rule = self.rules.get(name, self.otherwise)
        if rule.answer is not None:
            await context.abort(rule.answer, "the proxy says no")
        self.recorded.append(call)
        tasks = [asyncio.ensure_future(self._later(call, rule.delay_s())) for _ in range(rule.deliveries())]
        self._late.update(tasks)
        for task in tasks:
            task.add_done_callback(self._late.discard)
        try:
            # A client that gives up does not take back what is on its way.
            replies = await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        except grpc.aio.AioRpcError as error:
            context.set_trailing_metadata(_kept(error.trailing_metadata()))
            await context.abort(error.code(), error.details() or "")
        if rule.loses_reply():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        return replies[-1]

    async def _later(self, call: Recorded, delay_s: float) -> bytes:
        await asyncio.sleep(delay_s)
        return await self._forward(call)

    async def _forward(self, call: Recorded) -> bytes:
        assert self._channel is not None
        reply: bytes = await self._channel.unary_unary(call.method)(call.request, metadata=call.metadata)
        return reply


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, proxy: GrpcProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._proxy.handler(details.method, _kept(details.invocation_metadata))


def _kept(metadata: "object") -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in metadata or () if key in _PASSED_ON)  # type: ignore[attr-defined]  # untyped


@contextmanager
def grpc_proxy(target: str) -> Iterator[GrpcProxy]:
    """In a thread and an event loop of its own."""
    proxy = GrpcProxy(target)

    def run() -> None:
        asyncio.set_event_loop(proxy._loop)
        proxy._loop.run_forever()

    thread = threading.Thread(target=run, name="grpc-proxy", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(proxy.start(), proxy._loop).result(10)
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.stop(), proxy._loop).result(10)
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(10)
        proxy._loop.close()


def seldom(seed: int, *, share: float) -> Callable[[], bool]:
    """True for that share of the calls, the same ones each time."""
    rng = random.Random(seed)
    return lambda: rng.random() < share
