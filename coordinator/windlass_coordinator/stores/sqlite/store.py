"""The SQLite store: one writer thread that commits everything waiting at once.

Verbs run one after another on the writer's connection, each under its own savepoint; a reply is released
after the one fsync of the commit (`synchronous=FULL`, WAL). Readers have connections of their own and see
snapshots. Work that a commit readies is handed to waiting polls in that same commit (`follow`), which
saves a round trip through the event loop.

When the disk is full, what was put aside for that day is given up and everything but new work is tried again;
when it has lost something, nothing is tried again (see `troubles`).
"""

import asyncio
import concurrent.futures
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.base import Delivery, Follow, Transaction
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane, current_lane
from windlass_coordinator.stores.queries import Queries
from windlass_coordinator.stores.sqlite.claims import SqliteClaims
from windlass_coordinator.stores.sqlite.due import SqliteDue
from windlass_coordinator.stores.sqlite.files import (
    ReadDeadline,
    keep_log_short,
    open_database,
)
from windlass_coordinator.stores.sqlite.held import SqliteHeld
from windlass_coordinator.stores.sqlite.jobs import SqliteJobs
from windlass_coordinator.stores.sqlite.logs import SqliteLogs
from windlass_coordinator.stores.sqlite.nodes import SqliteNodes
from windlass_coordinator.stores.sqlite.orders import Order, OrderQueue, Reply
from windlass_coordinator.stores.sqlite.publishing import SqlitePublishing
from windlass_coordinator.stores.sqlite.queries import SqliteQueries
from windlass_coordinator.stores.sqlite.readers import Readers
from windlass_coordinator.stores.sqlite.reports import SqliteReports
from windlass_coordinator.stores.sqlite.restoring import SqliteRestoring
from windlass_coordinator.stores.sqlite.retention import SqliteRetention
from windlass_coordinator.stores.sqlite.roles import SqliteRoles
from windlass_coordinator.stores.sqlite.secrets import SqliteSecrets
from windlass_coordinator.stores.sqlite.steering import SqliteSteering
from windlass_coordinator.stores.sqlite.troubles import Trouble, judge
from windlass_proto.errors import InvalidRequest, NoRoom, Unavailable

T = TypeVar("T")

_log = structlog.get_logger()

# Looking a member up costs each verb a tenth of a microsecond.
_VITAL = Lane.VITAL

# What is not vital may use this much of a commit; a single verb of it may take longer.
_LONGEST_OF_OTHERS_S = 0.05

# Between two looks at a disk that was in trouble, and at the length of the log.
_LOOK_AGAIN_S = 1.0

# Other bytes each time: SQLite writes no page that stays the same.
_WRITE_ANYTHING = "INSERT OR REPLACE INTO meta (key, value) VALUES ('recovered_at_ns', ?)"


class SqliteTransaction(
    SqliteClaims,
    SqliteReports,
    SqliteHeld,
    SqliteDue,
    SqliteLogs,
    SqliteJobs,
    SqliteSteering,
    SqliteNodes,
    SqliteRoles,
    SqlitePublishing,
    SqliteSecrets,
    SqliteRestoring,
    SqliteRetention,
):
    """All records over the writer's connection."""

    def __init__(self, db: sqlite3.Connection, *, incarnation: int) -> None:
        self._db = db
        self._incarnation = incarnation
        self.wakes = Wakes()


@dataclass(frozen=True, slots=True)
class _Outcome:
    reply: Reply
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

    def __init__(self, path: str | Path, *, condition: StoreCondition | None = None) -> None:
        """Opens and migrates. Raises Conflict for a file that is not ours or newer than this program,
        Unavailable when it cannot be opened."""
        self._follow: Follow | None = None
        self._after_commit: Callable[[Wakes], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._condition = condition or StoreCondition()
        self._orders = OrderQueue(self._condition)
        self._condition.waiting = self._orders.__len__
        self._owed: Wakes | None = None
        self._broken: str | None = None
        self._house_at_s = 0.0
        self._closed = False
        self._path = str(path)
        deadline = ReadDeadline()
        opened = open_database(self._path, deadline=deadline)
        self._db, self._engine, self._log_index = opened.writer, opened.readers, opened.log_index
        self._incarnation = opened.incarnation
        self._transaction = SqliteTransaction(self._db, incarnation=opened.incarnation)
        # In memory the one connection belongs to the writer, which reads between two commits.
        self._readers = (
            None
            if opened.log_index is None
            else Readers(
                self._path, deadline=deadline, condition=self._condition, check=self._check_log_index
            )
        )
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
        self._orders.put(Order(verb, reply, current_lane.get()))
        return await reply

    def run_now(self, verb: Callable[[Transaction], T]) -> T:
        """The same without an event loop, for start-up and specs; blocks."""
        self._check_open()
        reply: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._orders.put(Order(verb, reply, Lane.VITAL))
        return reply.result()

    async def look_up(self, verb: Callable[[Transaction], T]) -> T:
        if self._readers is None:
            return await self.run(verb)
        self._check_open()
        return self._readers.read_here(lambda db: verb(SqliteTransaction(db, incarnation=self._incarnation)))

    async def read(self, query: Callable[[Queries], T]) -> T:
        self._check_open()
        if self._readers is not None:
            return await self._readers.read(lambda db: query(SqliteQueries(db, self._engine)))
        self._loop = asyncio.get_running_loop()
        reply: asyncio.Future[T] = self._loop.create_future()
        look = partial(query, SqliteQueries(self._db, self._engine))
        self._orders.put(Order(_no_verb, reply, current_lane.get(), look))
        return await reply

    async def read_small(self, query: Callable[[Queries], T]) -> T:
        if self._readers is None:
            return await self.read(query)
        self._check_open()
        return self._readers.read_here(lambda db: query(SqliteQueries(db, self._engine)))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._orders.close()
        self._thread.join()
        if self._readers is not None:
            self._readers.close()
        self._engine.dispose()
        self._db.close()
        if self._log_index is not None:
            self._log_index.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed: this coordinator is going down")
        if self._broken is not None:
            raise Unavailable(self._broken)

    def _write(self) -> None:
        while True:
            patience_s = None if self._condition.trouble is None else _LOOK_AGAIN_S
            batch = self._orders.take(patience_s=patience_s)
            if batch is None:
                return
            self._condition.busy_since_s = time.monotonic()
            if batch:
                self._serve(batch)
            self._keep_house()
            self._condition.busy_since_s = None

    def _serve(self, batch: Sequence[Order]) -> None:
        verbs = [order for order in batch if order.query is None]
        if verbs:
            self._commit(verbs)
        for order in batch:
            if order.query is not None:
                self._deliver([_ask(order, order.query)], Wakes(), ())

    def _commit(self, batch: Sequence[Order]) -> None:
        """All of them together; when there is no room for that, what lets work end comes before new work."""
        error = self._attempt(batch)
        if error is None:
            return
        trouble = judge(error, database=Path(self._path))
        if trouble is Trouble.FULL and self._condition.room.give_up():
            _log.warning("store.reserve_used", database=self._path)
            batch = self._refuse_growth(batch, error)
            error = self._attempt(batch) if batch else None
            if error is None:
                return
            trouble = judge(error, database=Path(self._path))
        self._note(trouble, error)
        if trouble in (Trouble.FULL, Trouble.READ_ONLY) and len(batch) > 1:
            # Those that write nothing, such as heartbeats, are served all the same.
            for order in batch:
                if (alone := self._attempt([order])) is not None:
                    self._refuse([order], alone)
        else:
            self._refuse(batch, error)

    def _attempt(self, batch: Sequence[Order]) -> Exception | None:
        """One commit; what fails it as a whole, when nothing of it is stored."""
        tx = self._transaction
        wakes = Wakes()
        if self._owed is not None:
            wakes.merge(self._owed)
        owed: Wakes | None = None
        deliveries: Sequence[Delivery] = ()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._check_log_index()
            outcomes = self._run_verbs(batch, wakes)
            if self._follow is not None and (wakes.clusters or wakes.nodes):
                if self._hands_out_work():
                    tx.wakes = wakes
                    deliveries = self._follow(tx, wakes)
                else:  # later, when there is room for it
                    owed = Wakes(clusters=wakes.clusters, nodes=wakes.nodes)
            self._db.execute("COMMIT")
            if self._log_index is not None:
                self._log_index.note()
        except Exception as error:  # noqa: BLE001 - the writer must live; nothing of this batch is stored
            self._roll_back()
            for delivery in deliveries:
                delivery.take_back()
            return error
        self._owed = owed
        self._orders.put_back(batch[len(outcomes) :])
        self._deliver(outcomes, wakes, deliveries)
        return None

    def _hands_out_work(self) -> bool:
        return self._condition.trouble is None and self._condition.room.is_whole

    def _run_verbs(self, batch: Sequence[Order], wakes: Wakes) -> list[_Outcome]:
        """Outcomes of as many as there is time for: what is urgent and arrives meanwhile must not wait."""
        outcomes: list[_Outcome] = []
        give_way_at_s: float | None = None
        for order in batch:
            if order.lane is not _VITAL:
                now = time.monotonic()
                if give_way_at_s is None:
                    give_way_at_s = now + _LONGEST_OF_OTHERS_S
                elif now > give_way_at_s:
                    break
            outcomes.append(self._run_verb(order, wakes))
        return outcomes

    def _run_verb(self, order: Order, wakes: Wakes) -> _Outcome:
        self._transaction.wakes = mine = Wakes()
        self._db.execute("SAVEPOINT verb")
        try:
            result = order.verb(self._transaction)
        except Exception as error:
            # Also a bug's: it is the caller's, who gets it, unless all are concerned.
            if not self._db.in_transaction or self._is_everybodys(error):
                raise
            self._db.execute("ROLLBACK TO verb")
            self._db.execute("RELEASE verb")
            return _Outcome(order.reply, None, _for_caller(error))
        self._db.execute("RELEASE verb")
        wakes.merge(mine)
        return _Outcome(order.reply, result, None)

    def _is_everybodys(self, error: Exception) -> bool:
        return judge(error, database=Path(self._path)) is not Trouble.CALLERS

    def _refuse_growth(self, batch: Sequence[Order], error: Exception) -> list[Order]:
        """Those of the batch that make nothing grow; the others hear that there is no room."""
        growing = [order for order in batch if order.lane is Lane.CHANGE]
        full = NoRoom(f"there is no room for the database {self._path} ({error}): free some, then try again")
        self._deliver([_Outcome(order.reply, None, full) for order in growing], Wakes(), ())
        return [order for order in batch if order.lane is not Lane.CHANGE]

    def _refuse(self, batch: Sequence[Order], error: Exception) -> None:
        kind = NoRoom if judge(error, database=Path(self._path)) is Trouble.FULL else Unavailable
        refusal = kind(f"the database {self._path} could not be written: {error}")
        self._deliver([_Outcome(order.reply, None, refusal) for order in batch], Wakes(), ())

    def _note(self, trouble: Trouble, error: Exception) -> None:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        if self._condition.trouble is None:  # else people know already
            _log.error(
                "store.commit_failed", database=self._path, trouble=trouble, code=code, error=str(error)
            )
        match trouble:
            case Trouble.BROKEN:
                self._break(f"{code}: {error}")
            case Trouble.FULL | Trouble.READ_ONLY:
                self._condition.trouble = f"the database {self._path} cannot be written: {error} ({code})"
            case Trouble.BUSY | Trouble.CALLERS:
                pass

    def _check_log_index(self) -> None:
        """Raises Unavailable, if the process lives on: nothing that was read now may be believed."""
        if self._log_index is not None and self._log_index.has_fallen_back:
            raise Unavailable(self._break("the index of its log is an older one"))

    def _break(self, why: str) -> str:
        """Nothing is safe any more."""
        self._broken = f"the disk has failed the database {self._path} ({why})"
        self._condition.trouble = self._broken
        self._condition.on_broken(self._broken)
        return self._broken

    def _keep_house(self) -> None:
        """Now and then: whether the disk is well again, and whether the log has grown too long."""
        now = time.monotonic()
        if now < self._house_at_s or self._readers is None or self._broken is not None:
            return
        self._house_at_s = now + _LOOK_AGAIN_S
        if self._condition.trouble is not None:
            self._look_again()
        else:
            keep_log_short(self._db, self._path)

    def _look_again(self) -> None:
        trouble, self._condition.trouble = self._condition.trouble, None
        reply: concurrent.futures.Future[None] = concurrent.futures.Future()
        touch = Order(lambda _: self._db.execute(_WRITE_ANYTHING, (str(time.time_ns()),)), reply, Lane.VITAL)
        if (error := self._attempt([touch])) is None:
            _log.info("store.recovered", database=self._path)
            return
        self._condition.trouble = trouble
        if judge(error, database=Path(self._path)) is Trouble.BROKEN:
            self._note(Trouble.BROKEN, error)

    def _roll_back(self) -> None:
        if not self._db.in_transaction:
            return
        try:
            self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            # SQLite does not tell what it has kept of the transaction: only a new process knows again.
            self._note(Trouble.BROKEN, error)

    def _deliver(self, outcomes: Sequence[_Outcome], wakes: Wakes, deliveries: Sequence[Delivery]) -> None:
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


def _ask(order: Order, query: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(order.reply, query(), None)
    except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
        return _Outcome(order.reply, None, error)


def _no_verb(_: Transaction) -> None:
    """Stands where an order has a query instead."""
