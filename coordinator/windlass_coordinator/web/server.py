"""The HTTP listener: health checks and metrics. The only importer of the HTTP library (decision D9).

It runs in the coordinator's event loop and leaves signals to the program.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from windlass_coordinator.settings_tree import HostPort
from windlass_proto.errors import Unavailable

WhyNotReady = Callable[[], str | None]
"""Says why no work can be taken on now, in one sentence; None = ready."""

_BACKLOG = 128
_MAX_CONNECTIONS = 256
_ARRIVES_WITHIN_S = 10.0
"""All of a request, from its first byte or from the connection on."""
_GRACE_S = 2
"""For requests under way when the listener closes."""


class WebServer:
    """Listens from its making on; answers while `serve` runs."""

    def __init__(self, address: HostPort, *, registry: CollectorRegistry, why_not_ready: WhyNotReady) -> None:
        """Takes the address; raises Unavailable when somebody else has it."""
        self._listener = _listen(address)
        host, port = self._listener.getsockname()[:2]
        self.address = HostPort(host=host, port=port)
        """Where it listens: with port 0 asked for, the port it got."""
        self._server = _Server(
            uvicorn.Config(
                _application(registry, why_not_ready),
                http=_ImpatientProtocol,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    async def serve(self) -> None:
        """Answers requests until `stop` is called; give it a task of its own."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()

    def stop(self) -> None:
        """Lets `serve` finish the requests under way and return."""
        self._server.should_exit = True


class _ImpatientProtocol(H11Protocol):
    """The library bounds how long an idle connection is kept, not how long a request may take to arrive."""

    _arrival: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the library
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.DONE or self.transport.is_closing():
            self._stop_waiting()
        else:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        if self._arrival is None:
            self._arrival = self.loop.call_later(_ARRIVES_WITHIN_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None


class _Server(uvicorn.Server):
    """Without signal handlers of its own: the program has its own order of going down."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _application(registry: CollectorRegistry, why_not_ready: WhyNotReady) -> Starlette:
    async def live(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        reason = why_not_ready()
        return PlainTextResponse("ready\n") if reason is None else PlainTextResponse(reason + "\n", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
        ]
    )


def _listen(address: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen at {address} for HTTP: {error.strerror}") from error
    return listener
