"""Hands work to parked polls, in a transaction of its own right after the commit that readied it.

Not within that commit, as on SQLite: a poll that parks itself while the transaction runs would be missed by
it, and would miss it in turn. One thread does it, so that no poll is served twice; what wakes meanwhile is
served together in the next round."""

import threading
from collections.abc import Callable, Sequence

import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.base import Delivery, Follow, Transaction
from windlass_coordinator.stores.postgres.sessions import Session
from windlass_coordinator.stores.postgres.transact import Committed, Transactor
from windlass_proto.errors import WindlassError

_log = structlog.get_logger()

_PAUSE_AFTER_ERROR_S = 0.2
# What was locked is held for a few milliseconds; asking without a pause would cost a core.
_PAUSE_FOR_LOCKS_S = 0.003

Deliveries = Sequence[Delivery]


class Follower:
    """A thread with a session. `tell` gets what was handed out, and whom that wakes."""

    def __init__(
        self, transactor: Transactor, session: Session, *, tell: Callable[[Deliveries, Wakes], None]
    ) -> None:
        self._transactor = transactor
        self._session = session
        self._tell = tell
        self._follow: Follow | None = None
        self._changed = threading.Condition()
        self._woken = Wakes()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="store-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def listen(self, follow: Follow) -> None:
        """Sets who hands out work."""
        self._follow = follow

    def wake(self, wakes: Wakes) -> None:
        """These may have work now."""
        if wakes.clusters or wakes.nodes or wakes.everything:
            with self._changed:
                self._woken.merge(
                    Wakes(clusters=wakes.clusters, nodes=wakes.nodes, everything=wakes.everything)
                )
                self._changed.notify()

    def close(self) -> None:
        """Waits until the thread has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._session.drop()

    def _run(self) -> None:
        while (wakes := self._next()) is not None:
            if self._follow is None:
                continue
            try:
                done = self._serve(self._follow, wakes)
            except WindlassError as error:
                _log.warning("store.follow_failed", error=str(error))
                self._again(wakes, after_s=_PAUSE_AFTER_ERROR_S)
                continue
            except Exception:  # noqa: BLE001 - a bug in a follower: the thread must live, or no poll is served
                _log.exception("store.follow_broken")
                self._again(wakes, after_s=_PAUSE_AFTER_ERROR_S)
                continue
            self._tell(done.result, done.wakes)
            if done.has_skipped:
                self._again(wakes, after_s=_PAUSE_FOR_LOCKS_S)

    def _next(self) -> Wakes | None:
        with self._changed:
            while self._woken == Wakes() and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            woken, self._woken = self._woken, Wakes()
            return woken

    def _again(self, wakes: Wakes, *, after_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, after_s)
        self.wake(wakes)

    def _serve(self, follow: Follow, wakes: Wakes) -> Committed[Deliveries]:
        made: Deliveries = ()

        def verb(tx: Transaction) -> Deliveries:
            nonlocal made
            _take_back(made)
            made = ()
            made = follow(tx, wakes)
            return made

        try:
            return self._transactor.run(self._session, verb)
        except BaseException:
            _take_back(made)
            raise


def _take_back(deliveries: Deliveries) -> None:
    """The commit that they were to be made after has failed."""
    for delivery in deliveries:
        delivery.take_back()
