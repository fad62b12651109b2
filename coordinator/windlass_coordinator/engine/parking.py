"""Polls that wait for work, and how work finds them.

A poll parks itself and nudges its node; whatever commit comes next serves it, if there is something for it.
So claims are made in one place only: inside the commit that readied the work, for as few polls as will take
it (decision D3). Polls are parked from the event loop and served from the store's writer: hence the lock.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from windlass_coordinator.core.records import Claimed, ClusterKey, NodeView, Wakes
from windlass_coordinator.engine.claim import claim
from windlass_coordinator.engine.hungry_polls import HungryPolls, size_of
from windlass_coordinator.engine.last_looks import LastLooks, LookCommitted
from windlass_coordinator.stores.base import Transaction
from windlass_proto.errors import WindlassError
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.states import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class PollAnswer:
    """What a poll brings home; all empty = nothing came in time."""

    claimed: Sequence[Claimed] = ()
    stops: Sequence[AttemptRef] = ()
    go_away: bool = False


@dataclass(slots=True, eq=False)
class ParkedPoll:
    """One poll that waits. Its reply is set on the event loop, after the commit that served it."""

    node_key: NodeKey
    cluster_key: ClusterKey
    capacity: NodeCapacity
    """When the session began; the claim itself looks at the node again."""
    epoch: int
    nonce: str
    poll_seq: int
    want: int
    reply: "asyncio.Future[PollAnswer]" = field(repr=False)
    is_empty: bool = False
    """Its node has no attempt."""
    place: int = 0
    """Among the polls of its cluster that want work."""
    may_repeat: bool = False
    """Work may have been leased to it already: by a commit that answered an earlier call with this number, or
    by one of which nobody knows what became of it."""
    told_stops: frozenset[AttemptRef] = frozenset()
    """Stops that this session has been told already; they alone are no reason to answer."""
    is_withdrawn: bool = False
    """Nobody waits for it any more, unless a commit is serving it right now."""
    is_held: bool = False
    """A commit is looking for work for it right now: whoever waits gets the answer of that commit."""
    is_replaced: bool = False
    """Another poll of its node has come while a commit was looking for work for it."""

    def comes_after(self, other: "ParkedPoll") -> bool:
        """Whether the agent has sent it later than the other one, as far as the numbers tell."""
        return (self.epoch, self.nonce) == (other.epoch, other.nonce) and self.poll_seq > other.poll_seq

    def answer(self, answer: PollAnswer) -> None:
        if not self.reply.done():
            self.reply.set_result(answer)

    def fail(self, error: WindlassError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedPollAnswer:
    """Implements `stores.base.Delivery`."""

    poll: ParkedPoll
    answer: PollAnswer
    park_again: Callable[[ParkedPoll], None]

    def __call__(self) -> None:
        self.poll.answer(self.answer)

    def take_back(self) -> None:
        self.park_again(self.poll)


class ParkedPolls:
    """All polls that wait on this coordinator, one per node at most."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        looks: LastLooks | None = None,
    ) -> None:
        """`looks` remembers what was seen; without it each poll looks for itself."""
        self._clock = clock
        self._looks = looks
        self._lock = threading.Lock()
        self._by_node: dict[NodeKey, ParkedPoll] = {}
        self._hungry: dict[ClusterKey, HungryPolls] = {}
        self._is_drained = False

    def __len__(self) -> int:
        return len(self._by_node)

    def park(self, poll: ParkedPoll) -> bool:
        """Waits from now on. False when nobody knows whether there is something for it, so that it has to be
        nudged.

        An older poll of the same node is answered empty, as its caller has gone; but while a commit looks for
        work for it, it gets what comes of that. One that was overtaken on its way is answered empty itself.
        """
        with self._lock:
            if self._is_drained:  # it came to the gate before the end, and in too late
                poll.answer(PollAnswer(go_away=True))
                return False
            older = self._by_node.get(poll.node_key)
            if older is not None and older.comes_after(poll):
                poll.answer(PollAnswer())
                return True
            self._take(poll.node_key)
            self._by_node[poll.node_key] = poll
            self._note_hungry(poll)
            # Under the lock: a commit that changes it either finds the poll, or has been heard of here.
            is_known = self._is_in_vain(poll)
            if older is not None and older.is_held:
                older.is_replaced, older = True, None
        if older is not None:
            older.answer(PollAnswer())
        return is_known

    def _is_in_vain(self, poll: ParkedPoll) -> bool:
        looks = self._looks
        if looks is None or not looks.is_quiet(poll.node_key, epoch=poll.epoch, nonce=poll.nonce):
            return False
        return poll.want == 0 or looks.has_no_work(poll.node_key, poll.cluster_key, poll.capacity)

    def is_quiet(self, node_key: NodeKey, session: SessionRef, *, reason: str) -> bool:
        """Whether it is known that a heartbeat of this session, which gives this reason for taking no work,
        would change nothing and be told nothing."""
        return self._looks is not None and self._looks.is_quiet_with(node_key, session, reason=reason)

    def forget_changed(self, wakes: Wakes) -> None:
        """After a commit, also when nothing was handed out in it."""
        if self._looks is not None:
            self._looks.forget(nodes=wakes.changed_nodes)

    def withdraw(self, poll: ParkedPoll) -> bool:
        """Stops waiting; False when a commit is serving it right now, or has an answer for it already."""
        with self._lock:
            poll.is_withdrawn = True
            if poll.is_held or self._by_node.get(poll.node_key) is not poll:
                return False
            self._take(poll.node_key)
            return True

    def drain(self) -> list[ParkedPoll]:
        """Takes all of them, and lets no more in; for going down.

        Those for which a commit looks right now get its answer."""
        with self._lock:
            self._is_drained = True
            polls = [poll for poll in self._by_node.values() if not poll.is_held]
            for poll in polls:
                self._take(poll.node_key)
        return polls

    def follow(self, tx: Transaction, wakes: Wakes) -> list["Served"]:
        """Serves the polls that `wakes` concerns, inside the commit (see `stores.base.Follow`)."""
        deliveries: list[Served] = []
        with self._lock:
            self._forget(wakes)
            nodes = set(self._by_node) if wakes.everything else wakes.nodes
            clusters = set(self._hungry) if wakes.everything else wakes.clusters
        try:
            for node_key in sorted(nodes):
                with self._lock:
                    poll = self._by_node.get(node_key)
                if poll is not None:
                    with self._held(poll, deliveries) as is_there:
                        if is_there:
                            self._serve_node(tx, poll, deliveries)
            for cluster_key in sorted(clusters):
                self._serve_cluster(tx, cluster_key, deliveries)
        except BaseException:
            for delivery in deliveries:
                delivery.take_back()
            raise
        return deliveries

    def _forget(self, wakes: Wakes) -> None:
        if self._looks is not None and wakes.everything:
            self._looks.forget_all()
        elif self._looks is not None:
            self._looks.forget(nodes=wakes.changed_nodes, clusters=wakes.clusters)

    def _serve_node(self, tx: Transaction, poll: ParkedPoll, deliveries: list["Served"]) -> None:
        node = tx.node_view(poll.node_key)
        if node is None or node.epoch != poll.epoch:
            return
        stops = tx.stopping_attempts(poll.node_key)
        earlier = _leased_earlier(tx, node, poll)
        claimed = earlier or claim(tx, node, want=poll.want, poll_seq=poll.poll_seq, now=self._clock())
        if claimed or not poll.told_stops.issuperset(stops):
            self._deliver(poll, PollAnswer(claimed=claimed, stops=stops), deliveries)
        if self._looks is not None and not stops and not earlier:
            found = sum(len(one.index) for one in claimed)
            look = self._looks.note(tx, node, wanted=poll.want, found=found)
            if look is not None:
                deliveries.append(look)

    def _serve_cluster(self, tx: Transaction, cluster_key: ClusterKey, deliveries: list["Served"]) -> None:
        hungry = self._hungry.get(cluster_key)
        if hungry is None:
            return
        # One without luck tells nothing: an instance may avoid the machine that it was lost on, but only that
        # one.
        without_luck: Counter[tuple[NodeCapacity, int]] = Counter()
        turns = hungry.turns()
        for poll in turns:
            size = size_of(poll)
            _, is_free = size
            tells_for = (poll.capacity, 0 if is_free else tx.gpus_in_use(poll.node_key))
            if without_luck[tells_for] == _TELL_FOR_ALL:
                continue
            with self._held(poll, deliveries) as is_there:
                node = tx.node_view(poll.node_key) if is_there else None
                if node is None or node.epoch != poll.epoch or node.state is not NodeState.READY:
                    continue
                earlier = _leased_earlier(tx, node, poll)
                claimed = earlier or claim(
                    tx, node, want=poll.want, poll_seq=poll.poll_seq, now=self._clock()
                )
                if claimed:
                    self._deliver(poll, PollAnswer(claimed=claimed), deliveries)
            if not earlier and sum(len(c.index) for c in claimed) < poll.want:
                without_luck[tells_for] += 1  # it could have taken more
                if is_free and without_luck[tells_for] == _TELL_FOR_ALL:
                    turns.leave_out(size)
                if len(without_luck) >= _SIZES_ASKED:
                    return

    @contextmanager
    def _held(self, poll: ParkedPoll, deliveries: list["Served"]) -> Iterator[bool]:
        """While a commit looks for work for a poll it cannot be withdrawn: who is told that nothing came has
        confirmed by its next poll that it got this answer, and would never hear of what was leased to it.

        Gives whether it is still parked. One that was to be withdrawn meanwhile, or whose place another one
        has taken, is answered with the rest.
        """
        with self._lock:
            poll.is_held = self._by_node.get(poll.node_key) is poll
        try:
            yield poll.is_held
        finally:
            with self._lock:
                poll.is_held = False
                is_over = poll.is_withdrawn or self._is_drained
                is_left = is_over and self._by_node.get(poll.node_key) is poll
                if is_left:
                    self._take(poll.node_key)
            if is_left or poll.is_replaced:  # which changes nothing for one that has been served
                self._answer(poll, PollAnswer(go_away=self._is_drained), deliveries)

    def _deliver(self, poll: ParkedPoll, answer: PollAnswer, deliveries: list["Served"]) -> None:
        with self._lock:
            if answer.claimed and self._looks is not None:
                self._looks.forget(nodes=(poll.node_key,))
            if self._by_node.get(poll.node_key) is poll:
                self._take(poll.node_key)
        self._answer(poll, answer, deliveries)

    def _answer(self, poll: ParkedPoll, answer: PollAnswer, deliveries: list["Served"]) -> None:
        deliveries.append(ParkedPollAnswer(poll=poll, answer=answer, park_again=self._park_again))

    def _park_again(self, poll: ParkedPoll) -> None:
        with self._lock:
            poll.may_repeat = True  # the commit may have been made all the same
            is_over = poll.is_withdrawn or poll.is_replaced
            if poll.node_key not in self._by_node and not (is_over or self._is_drained):
                self._by_node[poll.node_key] = poll
                self._note_hungry(poll)

    def _note_hungry(self, poll: ParkedPoll) -> None:
        if poll.want > 0:
            if poll.cluster_key not in self._hungry:
                self._hungry[poll.cluster_key] = HungryPolls(self._lock)
            self._hungry[poll.cluster_key].add(poll)

    def _take(self, node_key: NodeKey) -> ParkedPoll | None:
        poll = self._by_node.pop(node_key, None)
        if poll is not None and poll.want > 0:
            self._hungry[poll.cluster_key].remove(poll)
        return poll


def _leased_earlier(tx: Transaction, node: NodeView, poll: ParkedPoll) -> list[Claimed]:
    """What a repeated poll has got already; looked up here too, as on a shared database that may have been
    committed since the poll was parked."""
    return list(tx.leased_by_poll(node, poll_seq=poll.poll_seq)) if poll.may_repeat else []


Served = ParkedPollAnswer | LookCommitted

_TELL_FOR_ALL = 2

# Each different machine size costs a query per wake-up; the rest hear of the work with their next poll.
_SIZES_ASKED = 32
