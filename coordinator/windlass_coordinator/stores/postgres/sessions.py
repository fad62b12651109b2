"""Connections to PostgreSQL, as this store needs them, and what their errors mean."""

import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper

_CONNECT_TIMEOUT_S = 5
_UNHEARD_MS = 25_000
_CACHED_STATEMENTS = 500

# A coordinator that stands still in the middle of a transaction must not hold up the others for longer, nor
# must one whose machine has vanished. Verbs take milliseconds; the largest (a restart of a huge job) seconds.
_SETTINGS = (
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET statement_timeout = '60s'",
    "SET lock_timeout = '20s'",
    "SET client_connection_check_interval = '5s'",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    # Rows are found by their keys, whatever the statistics of a table that grows by thousands a second say.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_bitmapscan = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
    # What is acknowledged must survive a crash (promise P1), whatever the server's default is.
    """SELECT set_config('synchronous_commit', 'on', false)
       WHERE current_setting('synchronous_commit') = 'off'""",
)


class Fault(StrEnum):
    """What an error of the database means for the verb."""

    CALLERS = "callers"
    """The verb's own: trying again changes nothing."""
    RACE = "race"
    """Another transaction was in its way: it may be tried again at once."""
    LOST = "lost"
    """The connection is gone, or cannot be had now."""
    SLOW = "slow"
    """It took longer than it may."""
    FULL = "full"
    """The database has no room left."""


def judge(error: Exception) -> Fault:
    """What `error` of a verb, a commit or a connect means."""
    match error:
        case errors.SerializationFailure() | errors.DeadlockDetected() | errors.UniqueViolation():
            # The loser of a race to insert sees the winner's row the second time.
            return Fault.RACE
        case errors.QueryCanceled() | errors.LockNotAvailable():
            return Fault.SLOW
        case errors.DiskFull():
            return Fault.FULL
        case psycopg.OperationalError() | psycopg.InterfaceError() | errors.ReadOnlySqlTransaction():
            return Fault.LOST
        case _:
            return Fault.CALLERS


class Session:
    """One connection for verbs, made when it is first needed and again when it was lost."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[Any] | None = None
        self._cursor: psycopg.RawCursor[Any] | None = None
        self.mark = secrets.token_hex(8)
        """Names this session in the table of commit marks."""
        self.commits = 0

    def cursor(self) -> psycopg.RawCursor[Any]:
        """Of a connection that was good when it was last used; raises the driver's errors."""
        if self._connection is None or self._connection.closed or self._cursor is None:
            self._connection = connect(self._conninfo)
            self._cursor = psycopg.RawCursor(self._connection)
        return self._cursor

    def roll_back(self) -> None:
        """Ends a transaction; a connection on which that fails is dropped."""
        if self._connection is None or self._cursor is None:
            return
        try:
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._cursor.execute("ROLLBACK")
        except psycopg.Error:
            self.drop()

    def drop(self) -> None:
        """The next use connects anew."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._cursor = None


def dial(
    conninfo: str, *, autocommit: bool = False, prepare_threshold: int | None = None
) -> psycopg.Connection[Any]:
    """A connection that notices when its server's machine has vanished, also while it only listens."""
    return psycopg.connect(
        conninfo,
        autocommit=autocommit,
        connect_timeout=_CONNECT_TIMEOUT_S,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=_UNHEARD_MS,
        application_name="windlass-coordinator",
        prepare_threshold=prepare_threshold,
    )


def connect(conninfo: str) -> psycopg.Connection[Any]:
    """A connection for verbs. Transactions are begun and ended explicitly."""
    connection = dial(conninfo, autocommit=True, prepare_threshold=0)
    try:
        connection.prepared_max = _CACHED_STATEMENTS
        # One type for all numbers: otherwise each size of number would be another statement.
        connection.adapters.register_dumper(int, Int8Dumper)
        # All in one message: where the database is far away each round trip is dear.
        connection.execute("; ".join(_SETTINGS), prepare=False)
    except BaseException:
        connection.close()
        raise
    return connection


def keep_trying(act: Callable[[], Any], *, for_s: float) -> Any:
    """The result of `act`, which is tried again as long as there is no connection to be had."""
    deadline = time.monotonic() + for_s
    pause_s = 0.05
    while True:
        try:
            return act()
        except psycopg.Error as error:
            if judge(error) is not Fault.LOST or time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(1.0, 2 * pause_s)
