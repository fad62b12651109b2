"""What the coordinator does by itself, as in `duties.py`, on virtual time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from windlass_coordinator.core.records import DetachedAttempt
from windlass_coordinator.duties import _CLOCK_MOVED
from windlass_coordinator.engine.fleet import Silence
from windlass_coordinator.engine.nodes import end_drain, settle_drain
from windlass_coordinator.engine.sweep import forget_nodes, mark_silent, ready_due, replace_attempts
from windlass_coordinator.stores.base import Transaction
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.states import NodeState

if TYPE_CHECKING:
    from tests.simulation.coordinator import Coordinator

_LOOK_EVERY_S = 1.0
_PAUSE_AFTER_ERROR_S = 1.0


class RetryTimer:
    """One timer for all back-offs, at the earliest end."""

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator
        self._due: datetime | None = None
        self._turn = 0

    def start(self) -> None:
        """Back-offs of a former life count too."""
        self.arm(self._coordinator.wall())

    def arm(self, due: datetime) -> None:
        if self._due is None or due < self._due:
            self._due = due
            self._turn += 1
            turn = self._turn
            left_s = (due - self._coordinator.wall()).total_seconds()
            self._coordinator.after(max(0.0, left_s), lambda: self._ring(turn))

    def _ring(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._due = None
        coordinator = self._coordinator
        coordinator.run(
            lambda tx: ready_due(tx, policy=coordinator.rules.retry, now=coordinator.wall()),
            self._rung,
            self._failed,
            "sweep due",
        )

    def _rung(self, following: datetime | None) -> None:
        if following is not None:
            self.arm(following)

    def _failed(self, _: WindlassError) -> None:
        self._coordinator.after(_PAUSE_AFTER_ERROR_S, self.start)


class SilenceWatch:
    """Tells the store of nodes that are silent for too long."""

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator

    def start(self) -> None:
        self._coordinator.after(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        silence = self._coordinator.fleet.look()
        if not (silence.expired or silence.replace or silence.forget):
            self.start()
            return
        self._act_on(silence, self._steps(silence))

    def _act_on(self, silence: Silence, steps: Sequence[Callable[["_Next"], None]]) -> None:
        """One after the other; a failure ends the round, and the next look tells of it once more."""

        def do(position: int) -> None:
            if position == len(steps):
                self.start()
            else:
                steps[position](_Next(lambda: do(position + 1), refused))

        def refused(_: WindlassError) -> None:
            self._coordinator.fleet.tell_again(silence)
            self._coordinator.after(_PAUSE_AFTER_ERROR_S, self.start)

        do(0)

    def _steps(self, silence: Silence) -> list[Callable[["_Next"], None]]:
        steps: list[Callable[[_Next], None]] = []
        steps += [partial(self._mark_silent, node_key) for node_key in silence.expired]
        steps += [partial(self._replace, node_key, lasted) for node_key, lasted in silence.replace]
        if silence.forget:
            steps.append(partial(self._forget, silence.forget))
        return steps

    def _mark_silent(self, node_key: NodeKey, following: "_Next") -> None:
        coordinator = self._coordinator

        def marked(detached: list[DetachedAttempt]) -> None:
            coordinator.fleet.watch(node_key, detached)
            following.go_on()

        if not coordinator.fleet.is_silent(node_key):
            following.go_on()
            return
        coordinator.run(
            lambda tx: mark_silent(tx, node_key, now=coordinator.wall()),
            marked,
            following.refused,
            "sweep silent",
        )

    def _replace(self, node_key: NodeKey, lasted: timedelta, following: "_Next") -> None:
        coordinator = self._coordinator
        is_due = partial(coordinator.fleet.is_due, node_key, silence=lasted)

        def verb(tx: Transaction) -> None:
            replace_attempts(tx, node_key, is_due=is_due, rules=coordinator.rules, now=coordinator.wall())

        coordinator.run(verb, lambda _: following.go_on(), following.refused, "sweep replace")

    def _forget(self, nodes: Sequence[NodeKey], following: "_Next") -> None:
        coordinator = self._coordinator
        coordinator.run(
            lambda tx: forget_nodes(tx, nodes, now=coordinator.wall()),
            lambda _: following.go_on(),
            following.refused,
            "sweep forget",
        )


class _Next:
    """What follows a step."""

    def __init__(self, go_on: Callable[[], None], refused: Callable[[WindlassError], None]) -> None:
        self.go_on, self.refused = go_on, refused


class DrainWatch:
    """Ends drains: when nothing runs on the node any more, or when its time is over."""

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator

    def start(self) -> None:
        self._coordinator.after(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        # A look writes nothing, so it needs no commit of its own here.
        draining = self._coordinator.store.rows(
            "SELECT node_key FROM nodes WHERE state = ?", NodeState.DRAINING
        )
        for (node_key,) in draining:
            self._coordinator.run(
                partial(self._settle, node_key=NodeKey(node_key)),
                _nothing,
                _nothing,
                "sweep drain",
            )
        self.start()

    def _settle(self, tx: Transaction, node_key: NodeKey) -> None:
        coordinator = self._coordinator
        if not settle_drain(tx, node_key, now=coordinator.wall()):
            end_drain(tx, node_key, rules=coordinator.rules, now=coordinator.wall())


class ClockWatch:
    """Notices that the wall clock was moved, so that what has been dated waits as long as before."""

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator
        self._offset = timedelta()

    def start(self) -> None:
        self._coordinator.run(self._bring_due_forward, self._begin, self._again, "sweep clock")

    def _bring_due_forward(self, tx: Transaction) -> None:
        now = self._coordinator.wall()
        tx.bring_due_forward(latest=now + self._coordinator.rules.retry.ceiling)
        tx.wakes.wake_at(now)

    def _again(self, _: WindlassError) -> None:
        self._coordinator.after(_PAUSE_AFTER_ERROR_S, self.start)

    def _begin(self, _: Any) -> None:
        self._offset = self._now()
        self._coordinator.after(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        moved = self._now() - self._offset
        if abs(moved) < _CLOCK_MOVED:
            self._coordinator.after(_LOOK_EVERY_S, self._look)
            return

        def shifted(_: Any) -> None:
            self._offset += moved
            self._coordinator.after(_LOOK_EVERY_S, self._look)

        def verb(tx: Transaction) -> None:
            tx.shift_due(moved)
            self._bring_due_forward(tx)

        self._coordinator.run(verb, shifted, self._again, "sweep clock")

    def _now(self) -> timedelta:
        return timedelta(seconds=self._coordinator.wall().timestamp() - self._coordinator.boot_s())


def _nothing(_: Any) -> None:
    """What follows is seen with the next look."""
