"""Polls as `rpc/agent_service.py` serves them: answered when there is work, or when their time is over."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.messages import PollCall, Polled
from tests.simulation.network import Connection
from windlass_coordinator.core.leases import poll_wait
from windlass_coordinator.core.records import Claimed, ClusterKey, NodeView
from windlass_coordinator.engine.nodes import settle_never_arrived
from windlass_coordinator.engine.parking import ParkedPoll, PollAnswer
from windlass_coordinator.engine.session import current_node
from windlass_coordinator.rpc.agent_messages import batch_of
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints
from windlass_proto.errors import Denied, Unavailable, WindlassError
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.resources import NodeCapacity

if TYPE_CHECKING:
    from tests.simulation.coordinator import Coordinator

_DELIVERY_S = 5.0


class Promise:
    """Stands where the coordinator has an asyncio future: the answer of a parked poll."""

    def __init__(self) -> None:
        self._answer: PollAnswer | None = None
        self._then: Callable[[PollAnswer], None] | None = None

    def done(self) -> bool:
        return self._answer is not None

    def set_result(self, answer: PollAnswer) -> None:
        self._answer = answer
        if self._then is not None:
            self._then(answer)

    def then(self, tell: Callable[[PollAnswer], None]) -> None:
        self._then = tell
        if self._answer is not None:
            tell(self._answer)


class PollService:
    """Of one life of the coordinator."""

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator
        self._places: dict[NodeKey, tuple[ClusterKey, NodeCapacity]] = {}
        self._told_stops: dict[NodeKey, frozenset[AttemptRef]] = {}

    def begin(self, node_key: NodeKey, cluster_key: ClusterKey, capacity: NodeCapacity) -> None:
        """The node has a new session."""
        self._places[node_key] = (cluster_key, capacity)
        self._told_stops.pop(node_key, None)

    def poll(self, request: PollCall, connection: Connection) -> None:
        node_key = request.node_key
        may_repeat = self._coordinator.fleet.note_poll(
            node_key, epoch=request.session.node_epoch, poll_seq=request.poll_seq, via="its only way"
        )
        if node_key in self._places:
            self._park(request, connection, may_repeat=may_repeat)
            return

        def on_node(node: NodeView | None) -> None:
            if node is None:
                connection.fail(Denied("this node is not known here: join again"))
                return
            self._places[node_key] = (node.cluster_key, node.capacity)
            self._park(request, connection, may_repeat=may_repeat)

        self._coordinator.run(lambda tx: tx.node_view(node_key), on_node, connection.fail, connection.name)

    def _park(self, request: PollCall, connection: Connection, *, may_repeat: bool) -> None:
        node_key = request.node_key
        cluster_key, capacity = self._places[node_key]
        poll = ParkedPoll(
            node_key=node_key,
            cluster_key=cluster_key,
            capacity=capacity,
            epoch=request.session.node_epoch,
            nonce=request.session.nonce,
            poll_seq=request.poll_seq,
            want=request.want,
            reply=Promise(),  # type: ignore[arg-type]  # all that is asked of the future
            is_empty=request.is_empty,
            may_repeat=may_repeat,
            told_stops=self._told_stops.get(node_key, frozenset()),
        )

        def look(tx: Transaction) -> Sequence[Claimed]:
            node = current_node(tx, node_key, request.session)
            if request.is_empty:
                settle_never_arrived(
                    tx,
                    node,
                    poll_seq=poll.poll_seq,
                    rules=self._coordinator.rules,
                    now=self._coordinator.wall(),
                )
            return tx.leased_by_poll(node, poll_seq=poll.poll_seq) if poll.may_repeat else ()

        def nudge(tx: Transaction) -> Sequence[Claimed]:
            earlier = look(tx)
            if not earlier:
                tx.wakes.nodes.add(node_key)
            return earlier

        def refused(error: WindlassError) -> None:
            self._coordinator.parked.withdraw(poll)
            connection.fail(error)

        answer = partial(self._answer_poll, node_key, connection)

        def nudged(earlier: Sequence[Claimed]) -> None:
            self._coordinator.fleet.hear_poll(node_key)
            if not earlier:
                poll.reply.then(answer)  # type: ignore[attr-defined]  # a Promise
                self._wait(poll, request.wait, look_again, refused)
            elif self._coordinator.parked.withdraw(poll):
                answer(PollAnswer(claimed=earlier))
            else:
                poll.reply.then(lambda _: self._coordinator.run(look, found, refused, connection.name))

        def found(earlier: Sequence[Claimed]) -> None:
            answer(PollAnswer(claimed=earlier))

        def look_again() -> None:
            self._coordinator.run(look, found, refused, connection.name)

        if self._coordinator.parked.park(poll) and not may_repeat:
            nudged(())
        else:
            self._coordinator.run(nudge, nudged, refused, connection.name)

    def _wait(
        self,
        poll: ParkedPoll,
        asked: timedelta,
        look_again: Callable[[], None],
        refused: Callable[[WindlassError], None],
    ) -> None:
        def too_late() -> None:
            if not poll.reply.done():
                refused(Unavailable("the assignment could not be stored in time: poll again"))

        def timed_out() -> None:
            if poll.reply.done():
                return
            if not self._coordinator.parked.withdraw(poll):
                self._coordinator.after(_DELIVERY_S, too_late)
            elif poll.may_repeat:
                look_again()
            else:
                poll.answer(PollAnswer())

        longest = self._coordinator.fleet.timing().poll_wait
        wait = poll_wait(
            longest, asked=asked, poll_seq=poll.poll_seq, jitter=self._coordinator.rules.jitter()
        )
        self._coordinator.after(wait.total_seconds(), timed_out)

    def _answer_poll(self, node_key: NodeKey, connection: Connection, answer: PollAnswer) -> None:
        if answer.claimed:
            failpoints.reach("coord.claim.after_commit")
        if answer.stops:
            self._told_stops[node_key] = frozenset(answer.stops)
        batches = tuple(batch_of(claimed) for claimed in answer.claimed)
        timing = self._coordinator.fleet.news_for(node_key)
        connection.reply(Polled(batches=batches, stops=tuple(answer.stops), timing=timing))
