"""The network: every request and reply is a message that may be late, lost, doubled or overtaken."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.world import Process, World
from windlass_proto.errors import Unavailable, WindlassError

_REFUSED_S = 0.002
"""A machine whose program is not there says so at once."""


@dataclass(slots=True)
class Direction:
    """One way between two machines."""

    cut_until: float = 0.0
    """What is sent until then is lost."""
    delay_s: tuple[float, float] = (0.0002, 0.002)
    drop: float = 0.0
    double: float = 0.0
    clogged_until: float = 0.0
    """Messages arrive then, all at once and in any order."""
    in_order: dict[str, float] = field(default_factory=dict)
    """When the last message of a stream arrives."""


@dataclass(slots=True)
class Path:
    """Both ways between a machine and the coordinator."""

    there: Direction
    back: Direction

    def heal(self) -> None:
        """What is on its way arrives when it would have; streams stay in order."""
        self.there, self.back = (Direction(in_order=way.in_order) for way in (self.there, self.back))


class Call:
    """A unary call as its caller sees it: one outcome, once."""

    def __init__(
        self, client: Process, on_reply: Callable[[Any], None], on_error: Callable[[WindlassError], None]
    ):
        self._client, self._on_reply, self._on_error = client, on_reply, on_error
        self._life = client.life
        self._is_over = False

    def cancel(self) -> None:
        """The caller does not want to know any more; the server may do it all the same."""
        self._is_over = True

    @property
    def _is_awaited(self) -> bool:
        """By the very process that made it: its next life knows nothing of it."""
        return not self._is_over and self._client.life == self._life

    def replied(self, reply: Any) -> None:
        if self._is_awaited:
            self._is_over = True
            self._on_reply(reply)

    def failed(self, error: WindlassError) -> None:
        if self._is_awaited:
            self._is_over = True
            self._on_error(error)


class Connection:
    """What a handler answers to; holds the call open at the server."""

    def __init__(
        self, network: "Network", path: Path, call: Call, client: Process, *, name: str, in_order: str
    ) -> None:
        self._network, self._path, self._call, self._client = network, path, call, client
        self._in_order = in_order
        self.name = name

    def reply(self, reply: Any) -> None:
        self._close(lambda: self._call.replied(reply))

    def fail(self, error: WindlassError) -> None:
        self._close(lambda: self._call.failed(error))

    def reset(self) -> None:
        """The server has died: its machine tells the client, if the way is free."""
        if self._network.world.rng.random() < 0.8:
            self._network.carry(
                self._path.back,
                lambda: self._call.failed(Unavailable("the connection was reset")),
                self._client,
            )

    def _close(self, deliver: Callable[[], None]) -> None:
        self._network.open_connections.pop(self, None)
        self._network.carry(self._path.back, deliver, self._client, self._in_order)


class Network:
    """Carries calls to the one server."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open_connections: dict[Connection, None] = {}
        self.server: Process | None = None
        self.handlers: dict[str, Callable[[Any, Connection], None]] = {}

    def call(
        self,
        client: Process,
        path: Path,
        method: str,
        request: Any,
        *,
        timeout_s: float,
        on_reply: Callable[[Any], None],
        on_error: Callable[[WindlassError], None],
        in_order: str = "",
    ) -> Call:
        """`in_order`: never overtaken by a later one of the same name (a stream)."""
        call = Call(client, on_reply, on_error)
        client.after(timeout_s, lambda: call.failed(Unavailable("no answer in time")))
        stream = f"{client.name} {in_order}" if in_order else ""

        dialled = self._server_life()

        def arrive() -> None:
            connection = Connection(self, path, call, client, name=f"{method} {client.name}", in_order=stream)
            if dialled is not None and dialled != self._server_life():
                # What was sent to a process that has ended since does not reach its successor.
                connection.reset()
                return
            self._arrive(connection, method, request)

        self.carry(path.there, arrive, None, stream)
        if self.world.rng.random() < path.there.double:
            self.carry(path.there, arrive, None)
        return call

    def carry(
        self, way: Direction, deliver: Callable[[], None], to: Process | None, in_order: str = ""
    ) -> None:
        rng, now = self.world.rng, self.world.now
        if now < way.cut_until or (way.drop and rng.random() < way.drop):
            return
        when = max(now + rng.uniform(*way.delay_s), way.clogged_until)
        if in_order:
            when = way.in_order[in_order] = max(when, way.in_order.get(in_order, 0.0))
        self.world.at(when, deliver, to)

    def _arrive(self, connection: Connection, method: str, request: Any) -> None:
        server = self.server
        if server is None or not server.is_alive:
            self.world.after(_REFUSED_S, connection.reset)
            return
        self.open_connections[connection] = None
        # In the server's own time: a paused one answers when it goes on.
        self.world.at(self.world.now, lambda: self.handlers[method](request, connection), server)

    def _server_life(self) -> int | None:
        """Which life of the server is there to be dialled; None = it is down."""
        return self.server.life if self.server is not None and self.server.is_alive else None

    def server_died(self) -> None:
        open_now, self.open_connections = list(self.open_connections), {}
        for connection in open_now:
            self.world.after(_REFUSED_S, connection.reset)
