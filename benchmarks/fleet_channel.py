"""The connection of one simulated agent as the gRPC library keeps it: made for a call, made anew by itself.

A call on a connection that is not there makes one; if that fails the call fails, and the library tries again
by itself, after pauses that grow. A connection that is lost takes its calls along, and the next call makes
another.
"""

import asyncio
import random
from collections.abc import Callable

from benchmarks.fleet_wire import Connection, Done

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_PAUSE_GROWS_BY = 1.6
_PAUSE_JITTER = 0.2
"""As the agent sets it, and as the library has it."""

OUT_OF_REACH = b"out of reach"
"""Instead of trailers: the call was not answered, as there was no connection or it was lost."""


class Channel:
    __slots__ = (
        "_calls",
        "_connection",
        "_credential",
        "_failures",
        "_gate",
        "_host",
        "_is_connecting",
        "_port",
    )

    def __init__(self, host: str, port: int, *, credential: str, gate: asyncio.Semaphore) -> None:
        """`gate` bounds how many connections are being made at once."""
        self._host, self._port, self._credential, self._gate = host, port, credential, gate
        self._connection: Connection | None = None
        self._is_connecting = False
        self._failures = 0
        self._calls: list[Callable[[Connection | None], None]] = []

    def call(self, path: bytes, message: bytes, done: Done, *, timeout_s: int) -> None:
        """`done` is called once, later."""

        def begin(connection: Connection | None) -> None:
            if connection is None:
                done(None, OUT_OF_REACH)
            else:
                connection.call(path, message, done, timeout_s=timeout_s)

        loop = asyncio.get_running_loop()
        if self._connection is not None:
            begin(self._connection)
        elif self._failures and not self._is_connecting:
            loop.call_soon(begin, None)
        else:
            self._calls.append(begin)
            if not self._is_connecting:
                self._connect()

    def _connect(self) -> None:
        self._is_connecting = True
        _keep(asyncio.get_running_loop().create_task(self._make()))

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(
            authority=f"{self._host}:{self._port}", credential=self._credential, gone=self._gone
        )
        try:
            async with self._gate:
                await loop.create_connection(lambda: connection, self._host, self._port)
            is_made = not connection.has_gone  # a coordinator that is killed takes it away at once
        except OSError:
            is_made = False
        if is_made:
            self._failures, self._connection = 0, connection
            self._begin_calls(connection)
        else:
            self._failures += 1
            self._begin_calls(None)
            loop.call_later(self._pause_s(), self._connect)

    def _pause_s(self) -> float:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * _PAUSE_GROWS_BY ** (self._failures - 1))
        return pause_s * random.uniform(1 - _PAUSE_JITTER, 1 + _PAUSE_JITTER)

    def _begin_calls(self, connection: Connection | None) -> None:
        self._is_connecting = False
        calls, self._calls = self._calls, []
        for begin in calls:
            begin(connection)

    def _gone(self, open_calls: list[Done]) -> None:
        self._connection = None
        for done in open_calls:
            done(None, OUT_OF_REACH)


_tasks: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """A task that nobody keeps may be collected while it waits."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
