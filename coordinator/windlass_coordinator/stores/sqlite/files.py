"""Opening a SQLite file: is it ours, is it whole, is it up to date."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from windlass_coordinator.stores.schema.migrations import migrate, refuse_newer
from windlass_coordinator.stores.sqlite.log_index import LogIndex
from windlass_proto.errors import Conflict, Unavailable

IN_MEMORY = ":memory:"

APPLICATION_ID = 0x57494E44
"""`WIND` in the file's header tells our databases from other programs'."""

_READER_CONNECTIONS = 2
_BUSY_TIMEOUT_S = 5.0

LONGEST_READ = timedelta(seconds=5)
"""Of one page of a list, one status: what takes longer is ended."""

LOG_BOUND_BYTES = 16 << 20
"""The write-ahead log is begun anew when it is longer; at 4 MiB SQLite does so by itself if nobody reads."""

_LOG_PATIENCE_MS = 200
"""How long all writers wait for readers to let go of the log, once a second at most."""

_STEPS_PER_LOOK = 20_000
"""Of SQLite's machine: about a millisecond."""

_log = structlog.get_logger()

_FIRST_VALUES = "INSERT OR IGNORE INTO meta (key, value) VALUES ('incarnation', '1')"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDatabase:
    """The writer's raw connection and an engine for readers."""

    writer: sqlite3.Connection
    readers: Engine
    incarnation: int
    log_index: LogIndex | None
    """None = it is in memory."""


class ReadDeadline:
    """Ends a query that runs for too long: its snapshot would keep the log from being used anew."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """What this thread reads now has the time that a read has."""
        self._local.ends_at_s = time.monotonic() + LONGEST_READ.total_seconds()
        try:
            yield
        finally:
            self._local.ends_at_s = None

    def watch(self, db: sqlite3.Connection) -> None:
        """Holds the queries on a reader's connection to it."""
        db.set_progress_handler(self._has_passed, _STEPS_PER_LOOK)

    def _has_passed(self) -> bool:
        ends_at_s: float | None = getattr(self._local, "ends_at_s", None)
        return ends_at_s is not None and time.monotonic() > ends_at_s


def keep_log_short(writer: sqlite3.Connection, path: str) -> None:
    """Begins the log anew when it has grown beyond its bound, because there was always a reader at work.

    SQLite itself begins anew only when it finds none at that moment. This waits for those that are there; a
    read is short (`LONGEST_READ`), so one of the next tries succeeds.
    """
    try:
        length = os.stat(f"{path}-wal").st_size
    except OSError:  # not there; or the disk has failed, which the next commit finds and judges
        return
    if length <= LOG_BOUND_BYTES:
        return
    writer.execute(f"PRAGMA busy_timeout = {_LOG_PATIENCE_MS}")
    try:
        is_blocked = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        _log.error("store.log_not_shortened", database=path, length_bytes=length, error=str(error))
    else:
        if is_blocked:
            _log.warning("store.log_held_by_readers", database=path, length_bytes=length)
    finally:
        writer.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")


def open_database(path: str, *, deadline: ReadDeadline | None = None) -> OpenedDatabase:
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
            log_index = None if in_memory else LogIndex(path)
        except BaseException:
            writer.close()
            raise
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except DBAPIError as error:
        raise _translated(error.orig, path) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened: {error.strerror}") from error
    readers = writer_engine if in_memory else _reader_engine(path, deadline or ReadDeadline())
    return OpenedDatabase(writer=writer, readers=readers, incarnation=int(row[0]), log_index=log_index)


def open_reader(path: str, *, deadline: ReadDeadline) -> sqlite3.Connection:
    """A connection that sees what is committed and can write nothing."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)
    db.execute("PRAGMA query_only = 1")
    deadline.watch(db)
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
    for (revision,) in db.execute("SELECT version_num FROM alembic_version") if tables else ():
        refuse_newer(revision)


def _reader_engine(path: str, deadline: ReadDeadline) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, pool_size=_READER_CONNECTIONS, max_overflow=0
    )
    _begin_explicitly(engine)

    def read_only(connection: Any, _: object) -> None:
        connection.execute("PRAGMA query_only = 1")
        deadline.watch(connection)

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
