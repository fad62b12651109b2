"""Opening a SQLite file: is it ours, is it whole, is it up to date."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from windlass_coordinator.stores.schema.migrations import migrate
from windlass_proto.errors import Conflict, Unavailable

IN_MEMORY = ":memory:"

_APPLICATION_ID = 0x57494E44
"""`WIND` in the file's header tells our databases from other programs'."""

_READER_CONNECTIONS = 2
_BUSY_TIMEOUT_S = 5.0

_FIRST_VALUES = "INSERT OR IGNORE INTO meta (key, value) VALUES ('incarnation', '1')"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDatabase:
    """The writer's raw connection and an engine for readers."""

    writer: sqlite3.Connection
    readers: Engine
    incarnation: int
    in_memory: bool


def open_database(path: str) -> OpenedDatabase:
    """Opens, checks and migrates. Raises Conflict for a foreign or newer database, which is left untouched,
    and Unavailable when it cannot be read or written."""
    in_memory = path == IN_MEMORY
    try:
        writer = _connect(path)
        _refuse_foreign(writer, path)
        writer_engine = create_engine("sqlite://", creator=lambda: writer, poolclass=StaticPool)
        _begin_explicitly(writer_engine)
        with writer_engine.begin() as connection:
            migrate(connection)
            connection.exec_driver_sql(_FIRST_VALUES)
        writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        row = writer.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    readers = writer_engine if in_memory else _reader_engine(path)
    return OpenedDatabase(writer=writer, readers=readers, incarnation=int(row[0]), in_memory=in_memory)


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that sees what is committed and can write nothing."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)
    db.execute("PRAGMA query_only = 1")
    return db


def _connect(path: str) -> sqlite3.Connection:
    if path != IN_MEMORY:
        Path(path).touch(mode=0o600)
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S, cached_statements=512
    )
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: an acknowledged commit survives a power loss (promise P1). Group commit makes it cheap.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA cache_size = -65536")  # KiB: 64 MiB, the hot end of a few million attempts
    return db


def _refuse_foreign(db: sqlite3.Connection, path: str) -> None:
    found = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    if tables and found != _APPLICATION_ID:
        raise Conflict(f"{path} is a database of another program: name another data directory")


def _reader_engine(path: str) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, pool_size=_READER_CONNECTIONS, max_overflow=0
    )
    _begin_explicitly(engine)

    def read_only(connection: Any, _: object) -> None:
        connection.execute("PRAGMA query_only = 1")

    event.listen(engine, "connect", read_only)
    return engine


def _begin_explicitly(engine: Engine) -> None:
    """The driver's own idea of when a transaction begins would break snapshots and savepoints."""

    def no_hidden_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    def begin(connection: Connection) -> None:
        if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]  # sqlite3's
            connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", no_hidden_begin)
    event.listen(engine, "begin", begin)


def _translated(error: sqlite3.DatabaseError, path: str) -> Conflict | Unavailable:
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(f"{path} cannot be opened: {error}")
    return Conflict(f"{path} is not a whole database ({error}): restore it from a backup; it was not changed")
