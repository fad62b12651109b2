"""A TCP proxy that does to connections what bad networks do, and can be told so while it runs.

It has a thread and an event loop of its own, so that a test that waits does not slow it down. What is held
back is not lost, as TCP would send it again: it goes on when the way is free. A swallowed connection is lost
for ever and nobody is told, as behind a firewall that has forgotten it.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 16 << 10
_LOOK_EVERY_S = 0.01
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on with 0 s: a close sends RST."""


@dataclass(slots=True)
class Way:
    """One direction of all connections."""

    held: bool = False
    """Nothing passes, nobody is told."""
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """Of all connections together; 0 = as fast as it goes."""
    passed_bytes: int = 0
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One piece at a time is on it."""


@dataclass(slots=True, eq=False)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    left_bytes: int | None
    """Until it is reset."""
    swallowed: bool = False

    def reset(self) -> None:
        for writer in (self.near, self.far):
            with suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


@dataclass(slots=True, eq=False)
class ChaosProxy:
    """Between clients, who know `address`, and `target` (HOST:PORT)."""

    target: str
    address: str = ""
    up: Way = field(default_factory=Way)
    """From clients to the target."""
    down: Way = field(default_factory=Way)
    connections: int = 0
    """Accepted so far."""
    _open: set[_Connection] = field(default_factory=set)
    _reset_between: tuple[int, int] | None = None
    _rng: random.Random = field(default_factory=lambda: random.Random(1))
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None

    def cut(self) -> None:
        """Nothing passes in either direction; connections stay, new ones hang."""
        self.up.held = self.down.held = True

    def heal(self) -> None:
        """What was held back goes on; swallowed connections stay so."""
        self.up.held = self.down.held = False

    def swallow(self) -> None:
        """Everything on the connections of now disappears, for ever; new ones work."""
        self._call(self._swallow)

    def reset(self) -> None:
        """All connections end with RST."""
        self._call(self._reset)

    def reset_after(self, least: int, most: int) -> None:
        """Every new connection ends with RST after so many bytes."""
        self._reset_between = (least, most)

    def keep(self) -> None:
        """New connections are not reset any more."""
        self._reset_between = None

    def refuse(self) -> None:
        """Connections are refused, those of now are reset."""
        self._call(self._close_server)
        self.reset()

    def accept(self) -> None:
        """Connections are accepted again."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def open_connections(self) -> int:
        return len(self._open)

    # -- in its thread

    def _call(self, what: "object") -> None:
        done = threading.Event()

        def act() -> None:
            what()  # type: ignore[operator]  # one of the plain methods below
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(10), "the proxy does not answer"

    def _swallow(self) -> None:
        for connection in self._open:
            connection.swallowed = True

    def _reset(self) -> None:
        for connection in list(self._open):
            connection.reset()

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _listen(self) -> None:
        host, _, port = (self.address or "127.0.0.1:0").partition(":")
        self._server = await asyncio.start_server(self._serve, host, int(port))
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.up.held or self.down.held:  # no handshake comes through
            await asyncio.sleep(_LOOK_EVERY_S)
        host, _, port = self.target.partition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        left = None if self._reset_between is None else self._rng.randint(*self._reset_between)
        connection = _Connection(writer, far_writer, left)
        self._open.add(connection)
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, self.up, connection),
                self._pump(far_reader, writer, self.down, connection),
            )
        finally:
            self._open.discard(connection)
            for one in (writer, far_writer):
                one.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way, connection: _Connection
    ) -> None:
        """Until one side ends; an end is passed on as what it was held to be: at once."""
        with suppress(OSError):
            while data := await source.read(self._chunk(way)):
                await self._let_pass(data, sink, way, connection)
        if not connection.swallowed:
            with suppress(OSError, RuntimeError):
                sink.write_eof()

    async def _let_pass(
        self, data: bytes, sink: asyncio.StreamWriter, way: Way, connection: _Connection
    ) -> None:
        while way.held and not connection.swallowed:
            await asyncio.sleep(_LOOK_EVERY_S)
        if connection.swallowed:
            return
        if way.delay_s:
            await asyncio.sleep(way.delay_s)
        if way.bytes_per_s:
            async with way.line:
                await asyncio.sleep(len(data) / way.bytes_per_s)
        if connection.left_bytes is not None:
            data, connection.left_bytes = (
                data[: connection.left_bytes],
                max(0, connection.left_bytes - len(data)),
            )
        sink.write(data)
        way.passed_bytes += len(data)
        await sink.drain()
        if connection.left_bytes == 0:
            connection.reset()

    def _chunk(self, way: Way) -> int:
        """A narrow line dribbles."""
        return max(64, min(_CHUNK, int(way.bytes_per_s / 20))) if way.bytes_per_s else _CHUNK

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _end(self) -> None:
        self._close_server()
        self._reset()
        self._loop.call_later(0.05, self._loop.stop)


@contextmanager
def chaos_proxy(target: str) -> Iterator[ChaosProxy]:
    proxy = ChaosProxy(target)
    thread = threading.Thread(target=proxy._run, name="chaos-proxy", daemon=True)
    thread.start()
    try:
        proxy.accept()
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(proxy._end)
        thread.join(10)
