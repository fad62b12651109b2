"""The coordinator's database: the real verbs and the real SQLite transaction, in memory.

A committed transaction is on disk (synchronous=FULL), so the durable copy is the database after its last
COMMIT. A kill before it rolls back; one in the middle of it leaves it wholly there or not at all.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from tests.simulation.world import KilledHere, World
from windlass_coordinator.core.incarnations import next_incarnation
from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.base import Follow, Transaction
from windlass_coordinator.stores.sqlite.files import IN_MEMORY, open_database
from windlass_coordinator.stores.sqlite.store import SqliteTransaction
from windlass_proto.errors import Unavailable, WindlassError


@dataclass(frozen=True, slots=True)
class Order:
    """A verb that waits for the next commit, and who is told of its outcome."""

    verb: Callable[[Transaction], Any]
    on_done: Callable[[Any], None]
    on_error: Callable[[WindlassError], None]
    actor: str
    """For the trace and the checks: who asked for what."""


@cache
def _empty_database() -> bytes:
    """Migrated once per process of ours: it costs more than a whole short run."""
    opened = open_database(IN_MEMORY)
    try:
        return opened.writer.serialize()
    finally:
        opened.writer.close()


class SimulatedStore:
    """One database file of a coordinator."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.db = sqlite3.connect(IN_MEMORY)
        self.is_full = False
        self.commits = 0
        self._put(_empty_database())

    def _put(self, content: bytes) -> None:
        # A connection of its own: what is in memory is replaced under all prepared statements.
        self.db.close()
        self.db = sqlite3.connect(IN_MEMORY, isolation_level=None, cached_statements=512)
        self.db.deserialize(content)
        self.db.execute("PRAGMA temp_store = MEMORY")
        self.incarnation = int(
            self.db.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()[0]
        )

    def backup(self) -> bytes:
        return self.db.serialize()

    def restore(self, content: bytes, *, now: datetime) -> None:
        """An older backup comes back as the next incarnation, as `admin/restore.py` does it."""
        incarnation = next_incarnation((self.incarnation,), now=now)
        assert incarnation is not None
        self._put(content)
        self.db.execute("BEGIN IMMEDIATE")
        SqliteTransaction(self.db, incarnation=self.incarnation).begin_incarnation(incarnation, now=now)
        self.db.execute("COMMIT")
        self.incarnation = incarnation

    def close(self) -> None:
        self.db.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.db.execute(query, values).fetchall()

    def commit(
        self, orders: Sequence[Order], follow: Follow | None, *, cut_power: bool = False
    ) -> "Committed":
        """All of them in one transaction, each under a savepoint. Raises KilledHere, as a kill would."""
        tx = SqliteTransaction(self.db, incarnation=self.incarnation)
        wakes = Wakes()
        deliveries: Sequence[Callable[[], None]] = ()
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if self.is_full:
                raise sqlite3.OperationalError("database or disk is full")
            outcomes = [self._run(tx, order, wakes) for order in orders]
            if follow is not None and (wakes.clusters or wakes.nodes):
                tx.wakes = wakes
                deliveries = follow(tx, wakes)
            if cut_power:
                self.db.execute("COMMIT" if self._world.rng.random() < 0.5 else "ROLLBACK")
                raise KilledHere("power cut in COMMIT")
            self.db.execute("COMMIT")
        except KilledHere:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        except sqlite3.OperationalError as error:
            self.db.execute("ROLLBACK")
            refused = Unavailable(f"the database could not be written: {error}")
            return Committed([_refusal(order, refused) for order in orders], Wakes(), ())
        self.commits += 1
        return Committed(outcomes, wakes, deliveries)

    def _run(self, tx: SqliteTransaction, order: Order, wakes: Wakes) -> Callable[[], None]:
        tx.wakes = mine = Wakes()
        self.db.execute("SAVEPOINT verb")
        try:
            result = order.verb(tx)
        except WindlassError as error:
            self.db.execute("ROLLBACK TO verb")
            self.db.execute("RELEASE verb")
            return _refusal(order, error)
        self.db.execute("RELEASE verb")
        wakes.merge(mine)
        return lambda: order.on_done(result)


@dataclass(frozen=True, slots=True)
class Committed:
    """What follows a commit, in this order."""

    outcomes: list[Callable[[], None]]
    wakes: Wakes
    deliveries: Sequence[Callable[[], None]]


def _refusal(order: Order, error: WindlassError) -> Callable[[], None]:
    return lambda: order.on_error(error)
