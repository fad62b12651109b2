"""Those who read beside the writer: by connections of their own, each on a snapshot of what is committed."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.reading_threads import ReadingThreads
from windlass_coordinator.stores.sqlite.files import LONGEST_READ, ReadDeadline, open_reader
from windlass_coordinator.stores.sqlite.troubles import Trouble, judge
from windlass_proto.errors import Unavailable

T = TypeVar("T")


class Readers:
    """Of the database at `path`, which is open for writing as long as they are."""

    def __init__(
        self, path: str, *, deadline: ReadDeadline, condition: StoreCondition, check: Callable[[], None]
    ) -> None:
        """`check` raises when what was read just now is not to be believed."""
        self._path, self._deadline, self._check = path, deadline, check
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._threads = ReadingThreads(condition)

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """On a thread of the readers. Raises Overloaded when too many wait for one."""
        return await self._threads.run(lambda: self.read_here(look))

    def read_here(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """On the caller's own thread: a few rows."""
        try:
            with self._deadline.running(), _snapshot(self._connection()) as db:
                found = look(db)
                self._check()
                return found
        except (sqlite3.Error, DBAPIError) as error:
            raise _unreadable(error, self._path) from error

    def close(self) -> None:
        """Finishes what was begun."""
        self._threads.close()
        for db in self._connections:
            db.close()

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            self._local.db = db = open_reader(self._path, deadline=self._deadline)
            self._connections.append(db)
        return db


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN")
    try:
        yield db
    finally:
        db.execute("ROLLBACK")


def _unreadable(error: sqlite3.Error | DBAPIError, path: str) -> Exception:
    """What a query's failure is to its caller; a mistake in the query itself stays what it is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return Unavailable(f"this took longer than {LONGEST_READ.seconds} s: ask for less at once")
    if isinstance(cause, Exception) and judge(cause, database=Path(path)) is Trouble.CALLERS:
        return error
    return Unavailable(f"the database {path} could not be read: {cause}")
