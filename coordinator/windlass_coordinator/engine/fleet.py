"""Who was heard when: the one thing about nodes that lives in memory (protocol.md, C5).

Heartbeats write nothing. This coordinator counts silence on its own monotonic clock, from its own start at
the earliest, so neither a restart nor a jump of the wall clock makes a node look dead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from windlass_coordinator.core.leases import (
    LeasePolicy,
    replace_due,
    restart_grace,
    timing_for,
    tolerance,
)
from windlass_coordinator.core.records import DetachedAttempt
from windlass_proto.model.assignments import Timing
from windlass_proto.model.ids import NodeKey


@dataclass(slots=True)
class _Heard:
    at_s: float
    lease: timedelta | None
    """As its agent was told, so that both count the same; None = by a former life of this coordinator."""
    expires_s: float
    told: Timing | None = None
    """What the agent goes by when it has got every answer; None = what a former life told it."""
    silent: bool = False
    deadlines: tuple[timedelta, ...] | None = None
    """Silences after which attempts of the node are given to others, the next one first; None = not known
    yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Nodes whose silence has reached a bound since the last look."""

    expired: tuple[NodeKey, ...]
    replace: tuple[tuple[NodeKey, timedelta], ...]
    """With how long it has lasted."""
    forget: tuple[NodeKey, ...]


class Fleet:
    """The nodes of this coordinator as heard by it. `monotonic` gives seconds."""

    def __init__(self, policy: LeasePolicy, *, monotonic: Callable[[], float]) -> None:
        self._policy = policy
        self._monotonic = monotonic
        self._heard: dict[NodeKey, _Heard] = {}
        self._last_poll: dict[NodeKey, tuple[tuple[int, int], str]] = {}
        self._fresh: set[NodeKey] = set()
        self._joining: dict[NodeKey, float] = {}
        self._timing: tuple[int, Timing] | None = None

    def expect(self, node_key: NodeKey) -> None:
        """A node known from the database: it has the grace of a restart to be heard."""
        grace = restart_grace(self._policy).total_seconds()
        self._heard.setdefault(node_key, _Heard(self._monotonic(), None, grace))

    def hear(self, node_key: NodeKey) -> None:
        """A sign of life that is answered with the timing."""
        self.hear_of(node_key)
        self._fresh.add(node_key)

    def hear_of(self, node_key: NodeKey) -> None:
        """A sign of life that another coordinator has had."""
        self._hear(node_key, self.timing())

    def hear_poll(self, node_key: NodeKey) -> None:
        """A sign of life that is answered late, and with the timing only if that is news (`news_for`)."""
        earlier = self._heard.get(node_key)
        if earlier is None or earlier.told is None:
            grace_s = restart_grace(self._policy).total_seconds()
            self._heard[node_key] = _Heard(self._monotonic(), None, grace_s)
        else:
            self._hear(node_key, earlier.told)
        self._fresh.add(node_key)

    def _hear(self, node_key: NodeKey, told: Timing) -> None:
        now_s, lease = self._monotonic(), told.lease
        earlier = self._heard.get(node_key)
        if earlier is not None and earlier.lease is not None:
            # A fleet that shrinks has shorter leases; until it hears so the agent counts on the one before.
            lease = max(lease, earlier.lease - timedelta(seconds=now_s - earlier.at_s))
        self._heard[node_key] = _Heard(now_s, lease, _expiry_s(lease), told)

    def news_for(self, node_key: NodeKey) -> Timing | None:
        """The timing, when the node goes by another one; it counts as told from now on."""
        timing, heard = self.timing(), self._heard.get(node_key)
        if heard is None or heard.told == timing:
            return None
        heard.told = timing
        heard.lease = max(timing.lease, heard.lease or timedelta(0))
        heard.expires_s = _expiry_s(heard.lease)
        return timing

    def is_silent(self, node_key: NodeKey) -> bool:
        """Whether the silence that was told of the node still lasts."""
        heard = self._heard.get(node_key)
        return heard is not None and heard.silent

    def watch(self, node_key: NodeKey, detached: Iterable[DetachedAttempt]) -> None:
        """The node is silent: tells when each of its attempts is to be given to others."""
        heard = self._heard.get(node_key)
        if heard is not None and heard.silent:
            if heard.lease is None:  # By now the whole fleet is expected, and it was told by its size.
                heard.lease = self.timing().lease
            lease = heard.lease
            heard.deadlines = tuple(sorted({self._replace_due(attempt, lease) for attempt in detached}))

    def is_due(self, node_key: NodeKey, attempt: DetachedAttempt, *, silence: timedelta) -> bool:
        """Whether an attempt is to be given to others after such a silence of its node."""
        heard = self._heard.get(node_key)
        if heard is None or heard.lease is None:
            return False
        return silence >= self._replace_due(attempt, heard.lease)

    def _replace_due(self, attempt: DetachedAttempt, lease: timedelta) -> timedelta:
        return replace_due(
            self._policy,
            lease=lease,
            disconnect=attempt.disconnect,
            outlives_lease_for=attempt.outlives_lease_for,
        )

    def pardon(self, stall: timedelta) -> None:
        """This process itself stood still for so long: no node was heard, and none is to blame."""
        for heard in self._heard.values():
            heard.at_s += stall.total_seconds()
        for node_key in self._joining:
            self._joining[node_key] += stall.total_seconds()

    def heard_since_last(self) -> set[NodeKey]:
        """Nodes heard since the last time this was asked."""
        heard, self._fresh = self._fresh, set()
        return heard

    def hear_again(self, nodes: Iterable[NodeKey]) -> None:
        """Nobody could be told of these: they count as heard since the last time."""
        self._fresh.update(nodes)

    def forget(self, node_key: NodeKey) -> None:
        """The node has left."""
        self._heard.pop(node_key, None)
        self._last_poll.pop(node_key, None)

    def overdue_joining(self, joining: Iterable[NodeKey]) -> list[NodeKey]:
        """Those of the nodes without a first session that have had their time for it, since they were seen
        here for the first time."""
        now_s = self._monotonic()
        self._joining = {node_key: self._joining.get(node_key, now_s) for node_key in joining}
        patience_s = self._policy.forget_joining_after.total_seconds()
        return [node_key for node_key, since_s in self._joining.items() if now_s - since_s > patience_s]

    @property
    def accept_deadline(self) -> timedelta:
        """See LeasePolicy."""
        return self._policy.accept_deadline

    def timing(self) -> Timing:
        """What agents are told to keep to, by the size of the fleet now."""
        nodes = len(self._heard)
        if self._timing is not None and self._timing[0] == nodes:
            return self._timing[1]
        timing = timing_for(self._policy, nodes=nodes)
        self._timing = (nodes, timing)
        return timing

    def note_poll(self, node_key: NodeKey, *, epoch: int, poll_seq: int, via: str) -> bool:
        """Remembers the poll; True when it may be a repetition: its first answer must be looked up.

        `via` names the connection: who comes on another one may have asked another coordinator in between.
        """
        number = (epoch, poll_seq)
        seen, seen_via = self._last_poll.get(node_key, (None, via))
        # The newest: a late poll of an older session must not make a repetition look new.
        self._last_poll[node_key] = (max(number, seen or number), via)
        # Never seen: it may have been answered by this coordinator's former life.
        return seen is None or seen >= number or seen_via != via

    def look(self) -> Silence:
        """Who has been silent for too long; each bound is told once per silence."""
        now = self._monotonic()
        expired, replace, forget = [], [], []
        forget_s = self._policy.forget_after.total_seconds()
        for node_key, heard in self._heard.items():
            silence = now - heard.at_s
            if silence <= heard.expires_s and not heard.silent:
                continue
            if not heard.silent and silence > heard.expires_s:
                heard.silent = True
                expired.append(node_key)
            lasted = timedelta(seconds=silence)
            due = [deadline for deadline in heard.deadlines or () if deadline <= lasted]
            if due and heard.deadlines:
                heard.deadlines = heard.deadlines[len(due) :]
                replace.append((node_key, lasted))
            if heard.silent and heard.deadlines == () and silence > forget_s:
                forget.append(node_key)
        for node_key in forget:
            self.forget(node_key)
        return Silence(expired=tuple(expired), replace=tuple(replace), forget=tuple(forget))

    def tell_again(self, silence: Silence) -> None:
        """What follows from it could not be stored: the next look tells of it once more."""
        for node_key in silence.forget:
            self.expect(node_key)
        for node_key in silence.expired:
            if node_key in self._heard:
                self._heard[node_key].silent = False
        for node_key, lasted in silence.replace:
            if node_key in self._heard:
                heard = self._heard[node_key]
                heard.deadlines = (lasted, *(heard.deadlines or ()))


def _expiry_s(lease: timedelta) -> float:
    return (lease + tolerance(lease)).total_seconds()
