"""The PostgreSQL store: verbs run side by side, a transaction and a connection each.

What makes that safe is in `locks`; how a verb is committed, repeated or found out about in `transact`. Work
that a commit readies is handed out right after it (`follower`), and the other coordinators on the same
database hear of it (`signals`)."""

import asyncio
import concurrent.futures
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as NoReaderFree

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.base import Follow, Transaction
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane, current_lane
from windlass_coordinator.stores.postgres.follower import Follower
from windlass_coordinator.stores.postgres.opening import is_lost, open_database, reader_engine
from windlass_coordinator.stores.postgres.queries import PostgresQueries
from windlass_coordinator.stores.postgres.sessions import Session
from windlass_coordinator.stores.postgres.signals import SignalReader, SignalWriter
from windlass_coordinator.stores.postgres.transact import Transactor
from windlass_coordinator.stores.postgres.waiting_line import Reply, VerbOrder, WaitingLine
from windlass_coordinator.stores.queries import Queries
from windlass_coordinator.stores.reading_threads import THREADS, ReadingThreads
from windlass_proto.errors import Overloaded, Unavailable

T = TypeVar("T")

_log = structlog.get_logger()

# Enough to keep two or three cores of the server busy; more of them only wait for each other.
_WRITERS = 8


class PostgresStore:
    """Implements `stores.base.Store`. `conninfo` is a URL or anything else that libpq understands."""

    def __init__(self, conninfo: str, *, condition: StoreCondition | None = None) -> None:
        """Connects and migrates. Raises Conflict for a database that is not ours or newer than this program,
        Unavailable when it cannot be reached."""
        self._after_commit: Callable[[Wakes], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._condition = condition or StoreCondition()
        self._closed = False
        incarnation = open_database(conninfo)
        origin = secrets.token_hex(8)
        self._transactor = Transactor(incarnation=incarnation, signals=SignalWriter(origin))
        self._line = WaitingLine(self._condition)
        self._condition.waiting = self._line.__len__
        self._engine: Engine = reader_engine(conninfo, size=THREADS)
        self._readers = ReadingThreads(self._condition)
        self._follower = Follower(self._transactor, Session(conninfo), tell=self._tell)
        self._follower.start()
        self._signals = SignalReader(conninfo, origin=origin, on_wakes=self._hear)
        self._signals.start()
        self._writers = [
            threading.Thread(target=self._write, args=(Session(conninfo),), name="store-writer", daemon=True)
            for _ in range(_WRITERS)
        ]
        for thread in self._writers:
            thread.start()

    def listen(self, *, follow: Follow, after_commit: Callable[[Wakes], None]) -> None:
        self._after_commit = after_commit
        self._follower.listen(follow)

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        self._check_open()
        self._loop = asyncio.get_running_loop()
        reply: asyncio.Future[T] = self._loop.create_future()
        self._line.put(VerbOrder(verb, reply, current_lane.get(), time.monotonic()))
        return await reply

    def run_now(self, verb: Callable[[Transaction], T]) -> T:
        self._check_open()
        reply: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._line.put(VerbOrder(verb, reply, Lane.VITAL, time.monotonic()))
        return reply.result()

    async def look_up(self, verb: Callable[[Transaction], T]) -> T:
        return await self.run(verb)

    async def read(self, query: Callable[[Queries], T]) -> T:
        self._check_open()
        return await self._readers.run(lambda: self._read(query))

    async def read_small(self, query: Callable[[Queries], T]) -> T:
        # Never at once: even the smallest query waits for the network.
        return await self.read(query)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._line.close()
        for thread in self._writers:
            thread.join()
        self._follower.close()
        self._signals.close()
        self._readers.close()
        self._engine.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed: this coordinator is going down")

    def _read(self, query: Callable[[Queries], T]) -> T:
        for is_last in (False, True):
            try:
                with self._engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None
                    return query(PostgresQueries(connection, driver))
            except NoReaderFree as error:
                raise Overloaded(f"no connection for queries was free in time: {error}") from error
            except Exception as error:
                if not is_lost(error):
                    raise
                if is_last:
                    raise Unavailable(f"the database cannot be reached: {error}") from error
        raise AssertionError

    def _write(self, session: Session) -> None:
        while (order := self._line.take()) is not None:
            self._condition.busy_since_s = time.monotonic()
            try:
                done = self._transactor.run(session, order.verb)
            except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
                self._note(error)
                self._answer(order.reply, None, error)
                continue
            self._note(None)
            self._answer(order.reply, done.result, None)
            self._tell((), done.wakes)
            self._follower.wake(done.wakes)
        session.drop()

    def _note(self, error: Exception | None) -> None:
        """For whoever asks whether the coordinator is ready."""
        self._condition.busy_since_s = None
        is_ill = isinstance(error, Unavailable) and not isinstance(error, Overloaded)
        self._condition.trouble = str(error) if is_ill else None

    def _answer(self, reply: Reply, result: object, error: Exception | None) -> None:
        if isinstance(reply, concurrent.futures.Future):
            _deliver(reply, result, error)
        else:
            self._on_loop(lambda: _deliver(reply, result, error))

    def _tell(self, deliveries: Sequence[Callable[[], None]], wakes: Wakes) -> None:
        """After a commit of this coordinator."""
        if not deliveries and wakes == Wakes():
            return

        def tell() -> None:
            for delivery in deliveries:
                delivery()
            if self._after_commit is not None:
                self._after_commit(wakes)

        self._on_loop(tell)

    def _hear(self, wakes: Wakes) -> None:
        """After a commit of another one."""
        self._tell((), wakes)
        self._follower.wake(wakes)

    def _on_loop(self, act: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)


def _deliver(reply: Reply, result: Any, error: Exception | None) -> None:
    if reply.done():  # whoever asked has gone away
        return
    if error is not None:
        reply.set_exception(error)
    else:
        reply.set_result(result)
