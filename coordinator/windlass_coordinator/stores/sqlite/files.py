"""Opening a SQLite file: is it ours, is it whole, is it up to date."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from windlass_coordinator.stores.schema.migrations import migrate
from windlass_proto.errors import Conflict, Unavailable

IN_MEMORY = ":memory:"

APPLICATION_ID = 0x57494E44
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
    """Opens, checks and migrates; makes a new one where there is none. Raises Conflict for a foreign, damaged
    or newer database, which is left untouched, and Unavailable when it cannot be read or written."""
    in_memory = path == IN_MEMORY
    try:
        if not in_memory and not _is_there(path):
            _make(path)
        writer = _connect(path)
        try:
            writer_engine = _bring_up(writer)
            row = writer.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()
        except BaseException:
            writer.close()
            raise
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except DBAPIError as error:
        raise _translated(error.orig, path) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened: {error.strerror}") from error
    readers = writer_engine if in_memory else _reader_engine(path)
    return OpenedDatabase(writer=writer, readers=readers, incarnation=int(row[0]), in_memory=in_memory)


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that sees what is committed and can write nothing."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)
    db.execute("PRAGMA query_only = 1")
    return db


def _is_there(path: str) -> bool:
    """Whether there is a database at `path`. Raises Conflict for what is none of ours, before any connection
    that could write: even asking for the journal mode would change a foreign file."""
    file, log = Path(path), Path(f"{path}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if not file.exists():
        if has_log:
            raise Conflict(f"{path} is missing, but its log {log.name} is there: restore it from a backup")
        return False
    if file.is_file() and file.stat().st_size == 0:
        raise Conflict(f"{path} is empty, which no database of ours ever is: restore it from a backup")
    if not has_log:
        # With a log the file alone tells nothing; `immutable` makes no files beside it.
        db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            _refuse_foreign(db, path)
        finally:
            db.close()
    return True


def _make(path: str) -> None:
    """A new database, whole from the first moment that it is seen under its name."""
    draft = Path(f"{path}.new")
    for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
        leftover.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    db = _connect(str(draft))
    try:
        _bring_up(db)
    finally:
        db.close()
    draft.replace(path)
    folder = os.open(draft.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S, cached_statements=512
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: an acknowledged commit survives a power loss (promise P1). Group commit makes it cheap.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA cache_size = -65536")  # KiB: 64 MiB, the hot end of a few million attempts
    except BaseException:
        db.close()
        raise
    return db


def _bring_up(writer: sqlite3.Connection) -> Engine:
    """Brings the schema up to date, in one transaction with the mark that makes the file ours."""
    engine = create_engine("sqlite://", creator=lambda: writer, poolclass=StaticPool)
    _begin_explicitly(engine)
    with engine.begin() as connection:
        migrate(connection)
        connection.exec_driver_sql(_FIRST_VALUES)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    return engine


def _refuse_foreign(db: sqlite3.Connection, path: str) -> None:
    found = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    if tables and found != APPLICATION_ID:
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


def _translated(error: BaseException | None, path: str) -> Conflict | Unavailable:
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(f"{path} cannot be opened: {error}")
    return Conflict(f"{path} is not a whole database ({error}): restore it from a backup; it was not changed")
