"""What the coordinator does by itself: ends back-offs, notices silence, removes logs of deleted jobs.

Each duty is one loop that an error does not end: it is logged, and the loop goes on after a pause.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.engine.fleet import Fleet, Silence
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.sweep import forget_nodes, mark_silent, ready_due, replace_attempts
from windlass_coordinator.logstore.base import LogStore
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import JobId, NodeKey

_log = structlog.get_logger()

_LOOK_EVERY = timedelta(seconds=1)
_SEEN_EVERY = timedelta(seconds=30)
_PAUSE_AFTER_ERROR = timedelta(seconds=1)


class RetryTimer:
    """One timer for all back-offs, at the earliest end; armed by commits, re-armed when it has rung."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: datetime | None = None
        self._changed = asyncio.Event()

    def arm(self, due: datetime) -> None:
        """A back-off ends at `due`."""
        if self._due is None or due < self._due:
            self._due = due
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        # Back-offs of a former life count too.
        self._due = datetime.now(UTC)
        while True:
            self._changed.clear()
            if await self._wait():
                # Cleared first: a commit that arms the timer meanwhile must not be overwritten.
                self._due = None
                following = await self._store.run(lambda tx: ready_due(tx, now=datetime.now(UTC)))
                if following is not None:
                    self.arm(following)

    async def _wait(self) -> bool:
        """True when the time has come, False when it was set anew meanwhile."""
        if self._due is None:
            await self._changed.wait()
            return False
        try:
            left = (self._due - datetime.now(UTC)).total_seconds()
            await asyncio.wait_for(self._changed.wait(), max(0.0, left))
        except TimeoutError:
            return True
        return False


class SilenceWatch:
    """Tells the store of nodes that are silent for too long, and when the others were heard."""

    def __init__(self, store: Store, fleet: Fleet, rules: Rules) -> None:
        self._store = store
        self._fleet = fleet
        self._rules = rules

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        next_note = loop.time()
        while True:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            await self._look()
            if loop.time() >= next_note:
                next_note = loop.time() + _SEEN_EVERY.total_seconds()
                heard = self._fleet.heard_since_last()
                seen = dict.fromkeys(heard, datetime.now(UTC))
                if seen:
                    await self._store.run(partial(_note_seen, seen=seen))

    async def _look(self) -> None:
        silence = self._fleet.look()
        try:
            await self._act_on(silence)
        except WindlassError:
            self._fleet.tell_again(silence)
            raise

    async def _act_on(self, silence: Silence) -> None:
        for node_key in silence.expired:
            await self._store.run(partial(mark_silent, node_key=node_key, now=_now()))
            _log.warning("node.silent", node_key=node_key)
        for node_key in silence.replace:
            await self._store.run(partial(replace_attempts, node_key=node_key, rules=self._rules, now=_now()))
            _log.warning("node.attempts_replaced", node_key=node_key)
        if silence.forget:
            await self._store.run(partial(forget_nodes, nodes=silence.forget, now=_now()))


class LogRemover:
    """Removes the output of deleted jobs; a name that is lost with the process only costs disk space."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        self._jobs: asyncio.Queue[JobId] = asyncio.Queue()

    def remove(self, wakes: Wakes) -> None:
        """Soon, off the event loop."""
        for job_id in wakes.deleted_jobs:
            self._jobs.put_nowait(job_id)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            job_id = await self._jobs.get()
            await asyncio.to_thread(self._logs.delete_job, job_id)


async def keep_going(name: str, duty: Callable[[], Awaitable[None]]) -> None:
    """Runs a duty for ever; an error of the store or the disk is a pause, not the end."""
    while True:
        try:
            await duty()
        except (WindlassError, OSError) as error:
            _log.error("duty.failed", duty=name, error=str(error))
            await asyncio.sleep(_PAUSE_AFTER_ERROR.total_seconds())


def _now() -> datetime:
    return datetime.now(UTC)


def _note_seen(tx: Transaction, seen: Mapping[NodeKey, datetime]) -> None:
    tx.note_seen(seen)
