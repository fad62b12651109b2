"""What the coordinator does by itself: ends back-offs, notices silence, removes logs of deleted jobs.

Each duty is one loop that an error does not end: it is logged, and the loop goes on after a pause.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import structlog

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.fleet import Fleet, Silence
from windlass_coordinator.engine.nodes import end_drain, settle_drain
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.sweep import forget_nodes, mark_silent, ready_due, replace_attempts
from windlass_coordinator.logstore.base import LogStore
from windlass_coordinator.readiness import DutyBoard
from windlass_coordinator.stores.base import Transaction, VerbRunner
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import JobId, NodeKey
from windlass_proto.model.states import NodeState

_log = structlog.get_logger()

_LOOK_EVERY = timedelta(seconds=1)
_LOOKS_PER_LOOK_AT_JOINING = 5
_SEEN_EVERY = timedelta(seconds=30)
_CLOCK_MOVED = timedelta(seconds=2)
_PAUSE_AFTER_ERROR = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=30)


class RetryTimer:
    """One timer for all back-offs, at the earliest end; armed by commits, re-armed when it has rung."""

    def __init__(self, store: VerbRunner, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy
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
                following = await self._store.run(
                    lambda tx: ready_due(tx, policy=self._policy, now=datetime.now(UTC))
                )
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
    """Tells the store of nodes that are silent for too long, or joined and never came."""

    def __init__(
        self, store: VerbRunner, fleet: Fleet, rules: Rules, *, before_look: Callable[[], None] = lambda: None
    ) -> None:
        """`before_look` pardons the nodes for a time in which this process stood still."""
        self._store = store
        self._fleet = fleet
        self._rules = rules
        self._before_look = before_look

    async def run(self) -> None:
        """Until cancelled."""
        for number in count(1):
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            await self._look()
            if number % _LOOKS_PER_LOOK_AT_JOINING == 0:
                await self._look_at_joining()

    async def _look(self) -> None:
        self._before_look()
        silence = self._fleet.look()
        try:
            await self._act_on(silence)
        except BaseException:  # whatever it was: it is told once, and nobody has acted on it
            self._fleet.tell_again(silence)
            raise

    async def _act_on(self, silence: Silence) -> None:
        for node_key in silence.expired:
            if not self._fleet.is_silent(node_key):  # heard while others were seen to
                continue
            detached = await self._store.run(partial(mark_silent, node_key=node_key, now=_now()))
            self._fleet.watch(node_key, detached)
            _log.warning("node.silent", node_key=node_key, attempts=len(detached))
        for node_key, lasted in silence.replace:
            is_due = partial(self._fleet.is_due, node_key, silence=lasted)
            await self._store.run(
                partial(replace_attempts, node_key=node_key, is_due=is_due, rules=self._rules, now=_now())
            )
            _log.warning("node.attempts_replaced", node_key=node_key)
        if silence.forget:
            await self._store.run(partial(forget_nodes, nodes=silence.forget, now=_now()))

    async def _look_at_joining(self) -> None:
        joining = await self._store.run(lambda tx: tx.nodes_in((NodeState.JOINING,)))
        overdue = self._fleet.overdue_joining(joining)
        if overdue:
            await self._store.run(partial(forget_nodes, nodes=overdue, now=_now()))
            _log.info("nodes.never_came", nodes=len(overdue))


class SeenNotes:
    """Writes down, for display, when the nodes of the only coordinator were heard."""

    def __init__(self, store: VerbRunner, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            heard = self._fleet.heard_since_last()
            if heard:
                await self._store.run(partial(_note_seen, seen=dict.fromkeys(heard, _now())))
                await asyncio.sleep(_SEEN_EVERY.total_seconds())


class DrainWatch:
    """Ends drains: when nothing runs on the node any more, or when its time is over."""

    def __init__(self, store: VerbRunner, rules: Rules) -> None:
        self._store = store
        self._rules = rules

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            draining = await self._store.run(lambda tx: tx.nodes_in((NodeState.DRAINING,)))
            for node_key in draining:
                await self._store.run(partial(_look_at_drain, node_key=node_key, rules=self._rules))


class ClockWatch:
    """Notices that the wall clock was moved, so that what has been dated waits as long as before (P12)."""

    def __init__(self, store: VerbRunner, policy: RetryPolicy, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._policy = policy
        self._monotonic = monotonic

    async def run(self) -> None:
        """Until cancelled."""
        # The clock may have been set while no coordinator looked.
        await self._store.run(partial(_bring_due_forward, longest=self._policy.ceiling))
        offset = self._offset()
        while True:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            moved = self._offset() - offset
            if abs(moved) < _CLOCK_MOVED:
                continue
            _log.warning("clock.moved", by_s=round(moved.total_seconds(), 3))
            await self._store.run(partial(_shift_due, by=moved, longest=self._policy.ceiling))
            offset += moved

    def _offset(self) -> timedelta:
        return timedelta(seconds=_now().timestamp() - self._monotonic())


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


async def keep_going(name: str, duty: Callable[[], Awaitable[None]], board: DutyBoard) -> None:
    """Runs a duty for ever. Whatever goes wrong, a bug too, is a pause and not the end: the others go on, and
    who asks whether the coordinator is ready is told."""
    while True:
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 (a supervisor: the process must live)
            times = board.times_in_a_row(name)
            pause_s = min(_LONGEST_PAUSE.total_seconds(), _PAUSE_AFTER_ERROR.total_seconds() * 2**times)
            board.failed(name, f"{type(error).__name__}: {error}", pause_s=pause_s)
            _log.error(
                "duty.failed",
                duty=name,
                times=times + 1,
                pause_s=pause_s,
                error=str(error),
                exc_info=_bug(error),
            )
            await asyncio.sleep(pause_s)


def _bug(error: Exception) -> Exception | None:
    """What is worth a traceback."""
    return None if isinstance(error, WindlassError | OSError) else error


def _now() -> datetime:
    return datetime.now(UTC)


def _look_at_drain(tx: Transaction, node_key: NodeKey, rules: Rules) -> None:
    if not settle_drain(tx, node_key, now=_now()):
        end_drain(tx, node_key, rules=rules, now=_now())


def _shift_due(tx: Transaction, by: timedelta, longest: timedelta) -> None:
    tx.shift_due(by)
    # What was dated after the clock had moved and before that was noticed is too late now.
    _bring_due_forward(tx, longest)


def _bring_due_forward(tx: Transaction, longest: timedelta) -> None:
    tx.bring_due_forward(latest=_now() + longest)
    # A timer that was set by the old time is set anew.
    tx.wakes.wake_at(_now())


def _note_seen(tx: Transaction, seen: Mapping[NodeKey, datetime]) -> None:
    tx.note_seen(seen)
