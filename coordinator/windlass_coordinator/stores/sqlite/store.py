"""The SQLite store: one writer thread that commits everything waiting at once.

Verbs run one after another on the writer's connection, each under its own savepoint; a reply is released
after the one fsync of the commit (`synchronous=FULL`, WAL). Readers have connections of their own and see
snapshots. Work that a commit readies is handed to waiting polls in that same commit (`follow`), which
saves a round trip through the event loop.
"""

import asyncio
import concurrent.futures
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.base import Follow, Queries, Transaction
from windlass_coordinator.stores.sqlite.claims import SqliteClaims
from windlass_coordinator.stores.sqlite.files import open_database, open_reader
from windlass_coordinator.stores.sqlite.jobs import SqliteJobs
from windlass_coordinator.stores.sqlite.nodes import SqliteNodes
from windlass_coordinator.stores.sqlite.queries import SqliteQueries
from windlass_coordinator.stores.sqlite.reports import SqliteReports
from windlass_coordinator.stores.sqlite.steering import SqliteSteering
from windlass_proto.errors import InvalidRequest, Unavailable

T = TypeVar("T")

_log = structlog.get_logger()

# More verbs than this in one commit gain nothing and delay the first.
_VERBS_PER_COMMIT = 256
_READERS = 2


class SqliteTransaction(SqliteClaims, SqliteReports, SqliteJobs, SqliteSteering, SqliteNodes):
    """All records over the writer's connection."""

    def __init__(self, db: sqlite3.Connection, *, incarnation: int) -> None:
        self._db = db
        self._incarnation = incarnation
        self.wakes = Wakes()


_AnyFuture = asyncio.Future[Any] | concurrent.futures.Future[Any]


@dataclass(frozen=True, slots=True)
class _Order:
    verb: Callable[[Transaction], Any]
    reply: _AnyFuture
    query: Callable[[], Any] | None = None
    """Instead of the verb: something to read between two commits."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    reply: _AnyFuture
    result: Any
    error: BaseException | None

    def deliver(self) -> None:
        if self.reply.done():  # whoever asked has gone away
            return
        if self.error is not None:
            self.reply.set_exception(self.error)
        else:
            self.reply.set_result(self.result)


class SqliteStore:
    """Implements `stores.base.Store`. `path` ":memory:" makes a store that lives as long as this object."""

    def __init__(self, path: str | Path) -> None:
        """Opens and migrates. Raises Conflict for a file that is not ours or newer than this program,
        Unavailable when it cannot be opened."""
        self._follow: Follow | None = None
        self._after_commit: Callable[[Wakes], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._closed = False
        self._path = str(path)
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        opened = open_database(self._path)
        self._db, self._engine = opened.writer, opened.readers
        self._in_memory = opened.in_memory
        self._transaction = SqliteTransaction(self._db, incarnation=opened.incarnation)
        self._readers = concurrent.futures.ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    def listen(self, *, follow: Follow, after_commit: Callable[[Wakes], None]) -> None:
        """Sets who hands out work inside a commit, and who is told on the event loop what it changed."""
        self._follow = follow
        self._after_commit = after_commit

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        self._check_open()
        self._loop = asyncio.get_running_loop()
        reply: asyncio.Future[T] = self._loop.create_future()
        self._orders.put(_Order(verb, reply))
        return await reply

    def run_now(self, verb: Callable[[Transaction], T]) -> T:
        """The same without an event loop, for start-up and specs; blocks."""
        self._check_open()
        reply: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._orders.put(_Order(verb, reply))
        return reply.result()

    async def read(self, query: Callable[[Queries], T]) -> T:
        self._check_open()
        if self._in_memory:
            # The one connection belongs to the writer, which reads between two commits.
            self._loop = asyncio.get_running_loop()
            reply: asyncio.Future[T] = self._loop.create_future()
            self._orders.put(_Order(_no_verb, reply, lambda: self._read(query)))
            return await reply
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    async def read_small(self, query: Callable[[Queries], T]) -> T:
        if self._in_memory:
            return await self.read(query)
        self._check_open()
        return self._read(query)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._orders.put(None)
        self._thread.join()
        self._readers.shutdown()
        for db in self._reader_connections:
            db.close()
        self._engine.dispose()
        self._db.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed: this coordinator is going down")

    def _read(self, query: Callable[[Queries], T]) -> T:
        db = self._reader()
        if self._in_memory:
            return query(SqliteQueries(db, self._engine))
        db.execute("BEGIN")
        try:
            return query(SqliteQueries(db, self._engine))
        finally:
            db.execute("ROLLBACK")

    def _reader(self) -> sqlite3.Connection:
        """This reader thread's own connection."""
        if self._in_memory:
            return self._db
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            self._local.db = db = open_reader(self._path)
            self._reader_connections.append(db)
        return db

    def _write(self) -> None:
        while (order := self._orders.get()) is not None:
            batch = [order]
            while len(batch) < _VERBS_PER_COMMIT and not self._orders.empty():
                order = self._orders.get()
                if order is None:
                    self._serve(batch)
                    return
                batch.append(order)
            self._serve(batch)

    def _serve(self, batch: Sequence[_Order]) -> None:
        verbs = [order for order in batch if order.query is None]
        if verbs:
            self._commit(verbs)
        for order in batch:
            if order.query is not None:
                self._deliver([_ask(order, order.query)], Wakes(), ())

    def _commit(self, batch: Sequence[_Order]) -> None:
        tx = self._transaction
        wakes = Wakes()
        deliveries: Sequence[Callable[[], None]] = ()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._run_verb(order, wakes) for order in batch]
            if self._follow is not None and (wakes.clusters or wakes.nodes):
                tx.wakes = wakes
                deliveries = self._follow(tx, wakes)
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the writer must live; nothing of this batch is stored
            _log.error("store.commit_failed", error=str(error), verbs=len(batch))
            self._roll_back()
            refused = Unavailable(f"the database could not be written: {error}")
            outcomes = [_Outcome(order.reply, None, refused) for order in batch]
            wakes, deliveries = Wakes(), ()
        self._deliver(outcomes, wakes, deliveries)

    def _run_verb(self, order: _Order, wakes: Wakes) -> _Outcome:
        self._transaction.wakes = mine = Wakes()
        self._db.execute("SAVEPOINT verb")
        try:
            result = order.verb(self._transaction)
        except sqlite3.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
            self._db.execute("ROLLBACK TO verb")
            self._db.execute("RELEASE verb")
            return _Outcome(order.reply, None, _for_caller(error))
        self._db.execute("RELEASE verb")
        wakes.merge(mine)
        return _Outcome(order.reply, result, None)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _deliver(
        self, outcomes: Sequence[_Outcome], wakes: Wakes, deliveries: Sequence[Callable[[], None]]
    ) -> None:
        on_loop = []
        for outcome in outcomes:
            if isinstance(outcome.reply, concurrent.futures.Future):
                outcome.deliver()
            else:
                on_loop.append(outcome)
        if self._loop is None or self._loop.is_closed():
            return

        def deliver() -> None:
            for outcome in on_loop:
                outcome.deliver()
            for delivery in deliveries:
                delivery()
            if self._after_commit is not None:
                self._after_commit(wakes)

        self._loop.call_soon_threadsafe(deliver)


def _for_caller(error: Exception) -> Exception:
    """A number that no column can hold is the caller's mistake; the driver calls it an overflow."""
    if not isinstance(error, OverflowError):
        return error
    refusal = InvalidRequest(f"a number is too large to be stored: {error}")
    refusal.__cause__ = error
    return refusal


def _ask(order: _Order, query: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(order.reply, query(), None)
    except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
        return _Outcome(order.reply, None, error)


def _no_verb(_: Transaction) -> None:
    """Stands where an order has a query instead."""
