"""Opening a PostgreSQL database: is it there, is it ours, is it up to date."""

from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from windlass_coordinator.stores.postgres.sessions import Fault, connect, dial, judge, keep_trying
from windlass_coordinator.stores.schema.migrations import migrate
from windlass_proto.errors import Conflict, InvalidRequest, Unavailable

_WAIT_FOR_SERVER_S = 10.0

# Any number that other programs on the same server are not likely to lock too.
_MIGRATING = 0x57494E444C4D4947

_PREPARE = (
    """CREATE TABLE IF NOT EXISTS commit_marks (
         mark text PRIMARY KEY, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())
       WITH (fillfactor = 50)""",
    "DELETE FROM commit_marks WHERE at < now() - interval '7 days'",
    "INSERT INTO meta (key, value) VALUES ('incarnation', '1') ON CONFLICT DO NOTHING",
)

# These rows change thousands of times; with room beside them that costs no index.
_TUNE = (
    "ALTER TABLE tasks SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)",
    "ALTER TABLE jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)",
    "ALTER TABLE nodes SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)",
    "ALTER TABLE instances SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)",
    "ALTER TABLE attempts SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)",
)


def open_database(conninfo: str) -> int:
    """Brings the database up to date, one coordinator at a time; returns the incarnation. Raises Conflict for
    a foreign or newer one, which is left untouched, Unavailable when there is none to be reached."""
    try:
        keep_trying(lambda: _bring_up(conninfo), for_s=_WAIT_FOR_SERVER_S)
        with connect(conninfo) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()
    except psycopg.ProgrammingError as error:
        raise InvalidRequest(f"store: {_in_one_line(error)}") from error
    except psycopg.Error as error:
        raise Unavailable(f"the database cannot be opened: {_in_one_line(error)}") from error
    if row is None:
        raise Conflict("the database has no incarnation: it is damaged, restore it from a backup")
    return int(row[0])


def reader_engine(conninfo: str, *, size: int) -> Engine:
    """For queries: each transaction sees one snapshot and can write nothing."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: _plain(conninfo),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",
    )


def _bring_up(conninfo: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: _plain(conninfo), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
            before = connection.exec_driver_sql("SELECT to_regclass('commit_marks')").scalar()
            migrate(connection)
            for statement in _PREPARE if before is not None else (*_PREPARE, *_TUNE):
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from error
        raise
    finally:
        engine.dispose()


# The library names no type for a connection of the driver.
def _plain(conninfo: str) -> Any:
    return dial(conninfo)


def is_lost(error: Exception) -> bool:
    """Whether a query failed because there was no connection."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, Exception) and judge(cause) is Fault.LOST


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
