"""One verb, one transaction: begun, committed, repeated where that is right, and never guessed about.

When the connection is lost while COMMIT is on its way, nobody knows what became of it. So each transaction
that writes also sets its session's mark; asking for that row waits for the old transaction, should it still
be running, and then tells. Only then is the verb's result given, or the verb run again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

import psycopg
import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.postgres.locks import RunAgain
from windlass_coordinator.stores.postgres.sessions import Fault, Session, judge, keep_trying
from windlass_coordinator.stores.postgres.signals import CHANNEL, SignalWriter
from windlass_coordinator.stores.postgres.transaction import PostgresTransaction
from windlass_proto.errors import InvalidRequest, NoRoom, Overloaded, Unavailable

T = TypeVar("T")

_log = structlog.get_logger()

# A race is lost a few times in a row at most; a server that restarts is back within seconds.
_MOST_RACES = 20
_GIVE_UP_AFTER_S = 10.0
_RETRY_AFTER = timedelta(seconds=1)

_MARK = """
INSERT INTO commit_marks (mark, seq) VALUES ($1, $2)
ON CONFLICT (mark) DO UPDATE SET seq = excluded.seq, at = now()"""

_MARK_AND_TELL = f"WITH marked AS ({_MARK}) SELECT pg_notify($3, $4)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Generic[T]):
    """What came of a verb."""

    result: T
    wakes: Wakes
    has_skipped: bool
    """Something that was locked was passed over."""


class Transactor:
    """Runs verbs on sessions."""

    def __init__(self, *, incarnation: int, signals: SignalWriter) -> None:
        self.incarnation = incarnation
        self._signals = signals

    def run(self, session: Session, verb: Callable[[PostgresTransaction], T]) -> Committed[T]:
        """Runs the verb until it is committed or known to be impossible. Raises what the verb raises (nothing
        is written then), or Unavailable."""
        deadline = time.monotonic() + _GIVE_UP_AFTER_S
        races = 0
        first = RunAgain()
        while True:
            try:
                return self._once(session, verb, first)
            except RunAgain as again:
                session.roll_back()
                first = RunAgain(nodes=first.nodes | again.nodes, jobs=first.jobs | again.jobs)
            except psycopg.Error as error:
                fault = judge(error)
                _clean(session, fault)
                if races + 1 >= _MOST_RACES or time.monotonic() > deadline:
                    raise _for_caller(error, fault) from error
                if fault not in (Fault.RACE, Fault.LOST) or (races and isinstance(error, _BROKEN_RULE)):
                    raise _for_caller(error, fault) from error
                _log.debug("store.verb_repeated", fault=fault, error=str(error).strip())
                _pause(fault, races)
            except BaseException:
                session.roll_back()
                raise
            races += 1
            if races >= _MOST_RACES:
                raise Overloaded(
                    "too many others changed the same at the same time: try again", retry_after=_RETRY_AFTER
                )

    def _once(
        self, session: Session, verb: Callable[[PostgresTransaction], T], first: RunAgain
    ) -> Committed[T]:
        cursor = session.cursor()
        tx = PostgresTransaction(
            cursor, incarnation=self.incarnation, nodes_first=first.nodes, jobs_first=first.jobs
        )
        result = verb(tx)
        if tx.has_written:
            self._commit(session, tx)
        elif tx.has_begun:
            tx.send_queued()
            cursor.execute("COMMIT")
        return Committed(result=result, wakes=tx.wakes, has_skipped=tx.has_skipped)

    def _commit(self, session: Session, tx: PostgresTransaction) -> None:
        cursor = session.cursor()
        session.commits += 1
        text = self._signals.text(tx.wakes)
        try:
            with cursor.connection.pipeline():
                tx.send_queued()
                if text is None:
                    cursor.execute(_MARK, (session.mark, session.commits), prepare=True)
                else:
                    told = (session.mark, session.commits, CHANNEL, text)
                    cursor.execute(_MARK_AND_TELL, told, prepare=True)
                cursor.execute("COMMIT")
        except psycopg.Error as error:
            if judge(error) is not Fault.LOST:
                raise
            session.drop()
            if not _was_committed(session):
                raise
            _log.info("store.commit_found", error=str(error).strip())


def _was_committed(session: Session) -> bool:
    """What became of the session's last transaction; raises Unavailable when nobody can be asked."""

    def ask() -> bool:
        row = session.cursor().execute(_ASK, (session.mark,)).fetchone()
        return row is not None and bool(row[0] == session.commits)

    try:
        return bool(keep_trying(ask, for_s=_GIVE_UP_AFTER_S))
    except psycopg.Error as error:
        raise Unavailable(
            f"the connection to the database was lost in a commit, and it cannot be asked what became of it "
            f"({_in_one_line(error)}): look, or repeat the same call"
        ) from error


# Waits for the transaction that set the mark, if it has not ended.
_ASK = "SELECT seq FROM commit_marks WHERE mark = $1 FOR UPDATE"

_BROKEN_RULE = psycopg.errors.UniqueViolation


def _clean(session: Session, fault: Fault) -> None:
    if fault is Fault.LOST:
        session.drop()
    else:
        session.roll_back()


def _pause(fault: Fault, races: int) -> None:
    longest_s = 0.002 * 2 ** min(races, 7) if fault is Fault.RACE else 0.05 * 2 ** min(races, 4)
    time.sleep(longest_s * (0.5 + random.random() / 2))


def _for_caller(error: psycopg.Error, fault: Fault) -> Exception:
    text = _in_one_line(error)
    match fault:
        case Fault.LOST:
            return Unavailable(f"the database cannot be reached: {text}")
        case Fault.SLOW:
            return Overloaded(f"the database took too long: {text}", retry_after=_RETRY_AFTER)
        case Fault.FULL:
            return NoRoom(f"there is no room for the database: {text}")
        case _ if isinstance(error, psycopg.DataError):
            return InvalidRequest(f"a value cannot be stored: {text}")
        case _:
            return error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
