"""The agent of a simulated node: the real attempt runner and cores, with scripted loops of the link.

The loops are those of `windlass_agent/link`, one method each instead of one task each; the runner, its queue,
its adoption of what an earlier life left, its journal of intents, its pending events and its lease clock
are the product's own.
"""

from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation.agent_calls import SessionCalls
from tests.simulation.agent_poller import Poller
from tests.simulation.agent_reports import Releaser, Reporter
from tests.simulation.agent_stand_ins import Intents, Signal
from tests.simulation.messages import (
    Beaten,
    HeartbeatCall,
    JoinCall,
    Joined,
    LeaveCall,
    OpenCall,
    Opened,
)
from tests.simulation.network import Network
from tests.simulation.settings import (
    CHORES_EVERY_S,
    GIVE_BACK_AFTER_S,
    KILL_GRACE_S,
    RETRY_BASE_S,
    RETRY_CEILING_S,
)
from tests.simulation.shipper import Shipper
from tests.simulation.slots import SimulatedSlot
from tests.simulation.slow_path import SlowPath
from tests.simulation.world import Process
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.prefetch import PrefetchLimits
from windlass_agent.core.quiet import LOOKS_PER_INTERVAL, QuietState, may_leave_out
from windlass_agent.core.slots import HandOverLimits
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.runner.adoption import take_over
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.runner.start_queue import QueueSettings, StartQueue
from windlass_agent.runner.task_template import TaskTemplates
from windlass_proto import failpoints
from windlass_proto.errors import Denied, SessionLost, Unavailable, WindlassError
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.verdicts import InventoryVerdict

if TYPE_CHECKING:
    from tests.simulation.node import Node

_TICK_S = 0.5
_LEAVE_LOOK_S = 0.2
_ENDED_MOST = 20_000
_VARIABLES = NodeVariables(
    node_id="",
    node_name="",
    path="",
    home="",
    user="",
    lang="",
    tmpdir="",
    region="",
    oss_host="",
    worker_id="",
    gives_gpus=True,
)


class Agent(Process):
    """One agent process after the other, on one node."""

    def __init__(self, node: "Node", network: Network) -> None:
        super().__init__(node.world, f"agent {node.name}", node.clock)
        self.node, self.network = node, network
        self._backoff = Backoff(
            base=timedelta(seconds=RETRY_BASE_S), ceiling=timedelta(seconds=RETRY_CEILING_S)
        )

    @property
    def node_key(self) -> NodeKey:
        key = self.node.disk.identity.node_key
        assert key is not None
        return key

    # Its life

    def start(self) -> None:
        super().start()
        self.session: SessionRef | None = None
        self.watch = LeaseWatch(clock=self.boot_s)
        self.calls = SessionCalls(self, self.watch)
        self.reporter = Reporter(self)
        self._poller, self._releaser = Poller(self), Releaser(self)
        self._losses = self._beat_failures = 0
        self._audit: tuple[AttemptRef, ...] = ()
        self._has_beaten, self._answered_at_s = False, 0.0
        self._leaving = ""
        self.intents = Intents(self.node)
        self._begin_when_keepers_answer()

    def die(self) -> None:
        was_alive = self.is_alive
        super().die()
        if was_alive:
            self.intents.close()

    def _build(self) -> None:
        disk = self.node.disk
        templates = TaskTemplates(_VARIABLES, kill_grace=timedelta(seconds=KILL_GRACE_S))
        executors: list[SimulatedSlot] = []
        queue = StartQueue(
            self.node.facts.capacity,
            QueueSettings(
                prefetch=PrefetchLimits(ahead=timedelta(seconds=0.3)),
                hand_over=HandOverLimits(ahead=timedelta(seconds=0.25)),
                give_back_after_s=GIVE_BACK_AFTER_S,
            ),
            clock=self.boot_s,
            gpus=[str(number) for number in range(self.node.facts.gpus)],
        )
        self.shipper = Shipper(self, lambda ref: self.runner.logs_complete(ref))
        self.runner = AttemptRunner(
            executors,
            templates,
            queue,
            intents=self.intents,
            boot_id=self.node.boot_id,
            events=self.reporter,
            logs=self.shipper,
            directory_of=disk.attempt,
            output_directory=lambda ref: str(disk.attempt(ref)),
            clock=self.boot_s,
        )
        known = {disk.attempt(ref).name for ref in self.intents.live}
        self.runner.throw_away([disk.attempts / name for name in disk.leftovers() if name not in known])
        self.runner.demand_changed = Signal(self._poller.on_demand)  # type: ignore[assignment]  # no event loop
        self.runner._departures.release_due = Signal(self._releaser.release_soon)  # type: ignore[assignment]  # no event loop
        executors += [
            SimulatedSlot(self.node, number, self, self.runner) for number in range(len(disk.journals))
        ]
        self.runner.course.attach(SlowPath(self))
        take_over(
            self.runner,
            executors,
            templates,
            [_result_of(executor.adopt()) for executor in executors],
            intents=self.intents.live,
            gpus=self.intents.gpus,
            boot_id=self.node.boot_id,
            ended_by_agent=frozenset(),
            now_s=self.boot_s(),
        )

    def _begin_when_keepers_answer(self) -> None:
        """What an earlier life told them is read before what this one asks."""
        paused_until = max((one.paused_until for one in self.node.keepers if one is not None), default=0.0)
        when = max(paused_until, self.world.now) + self.world.rng.uniform(0.01, 0.2)
        self.world.at(when, self._begin, self)

    def _begin(self) -> None:
        if any(one is not None and one.paused_until > self.world.now for one in self.node.keepers):
            self._begin_when_keepers_answer()
            return
        self._build()
        self._chores()
        if self.node.disk.identity.node_key is None:
            self._join()
        else:
            self._open()

    def _chores(self) -> None:
        self.after(CHORES_EVERY_S, self._chores)
        self.runner.look_after()
        for directory in self.runner.take_rubbish():
            self.node.disk.remove(directory)

    def pause_s(self, failures: int) -> float:
        return self._backoff.delay(failures, jitter=self.world.rng.random()).total_seconds()

    # Sessions

    def _join(self, failures: int = 0) -> None:
        request = JoinCall(token_id=self.node.join_token, facts=self.node.facts)

        def again(error: WindlassError) -> None:
            # A restore makes tokens void; its operator has made another one.
            assert isinstance(error, Unavailable | Denied), f"{self.name} may not join: {error}"
            self.after(self.pause_s(failures + 1), lambda: self._join(failures + 1))

        def joined(reply: Joined) -> None:
            identity = self.node.disk.identity
            identity.node_key, identity.node_id = reply.node_key, reply.node_id
            self.node.ledger.node_joined(self.node, reply.node_key)
            self._open()

        self.calls.call("Join", request, joined, again)

    def _open(self) -> None:
        identity = self.node.disk.identity
        assert identity.node_id is not None
        request = OpenCall(
            node_key=self.node_key,
            node_id=identity.node_id,
            state_id=identity.state_id,
            boot_id=self.node.boot_id,
            last_nonce=identity.last_nonce,
            facts=self.node.facts,
            inventory=tuple(self.runner.inventory()),
        )
        sent_at_s = self.boot_s()

        def refused(error: WindlassError) -> None:
            if isinstance(error, Denied):
                self.node.denied(str(error))
                self.die()
                return
            self._losses += 1
            self.after(self.pause_s(self._losses), self._open)

        self.calls.call("OpenSession", request, lambda reply: self._opened(reply, sent_at_s), refused)

    def _opened(self, reply: Opened, sent_at_s: float) -> None:
        failpoints.reach("agent.session.after_reply")
        identity = self.node.disk.identity
        identity.last_nonce = reply.nonce
        self.world.note("session", self.name, reply.epoch, [(v.ref, v.verdict) for v in reply.verdicts])
        for item in reply.verdicts:
            if item.verdict in (InventoryVerdict.KILL, InventoryVerdict.FORGET):
                self.node.ledger.may_forget(self.node, [item.ref])
        self.watch.opened(self.runner, reply.timing, sent_at_s=sent_at_s)
        self.runner.obey(reply.verdicts)
        self.calls.begin()
        assert identity.node_id is not None
        self.session = SessionRef(node_id=identity.node_id, node_epoch=reply.epoch, nonce=reply.nonce)
        self._has_beaten = False
        self._lease_s = reply.timing.lease.total_seconds()
        self._opened_at_s = self.boot_s()
        self.shipper.begin()
        self._beat_later()
        self._poller.begin()
        self.reporter.begin()
        self._releaser.begin()
        self.after(_TICK_S, self.calls.in_turn(self._tick))
        self._leave_when_done()

    def _tick(self) -> None:
        try:
            self.watch.check()
        except SessionLost:
            self.lose_session()
            return
        self.watch._seen_s = self.boot_s()
        if self.watch.is_expired:
            self.runner.suspend()
        self.after(_TICK_S, self.calls.in_turn(self._tick))

    def lose_session(self) -> None:
        """One of the loops has found it lost: the others end, and a new one is opened."""
        self.world.note("session lost", self.name)
        self.session = None
        self.calls.end()
        self.reporter.suspend()
        self.shipper.suspend()
        self.watch.closed()
        self.runner.suspend()
        lasted_s = self.boot_s() - self._opened_at_s
        self._losses = 1 if lasted_s > self._lease_s else self._losses + 1
        self.after(self.pause_s(self._losses), self._open)

    # Heartbeats

    def _beat_later(self) -> None:
        pause_s = self.watch.lease.pause_s(jitter=self.world.rng.random())
        self.after(pause_s, self.calls.in_turn(lambda: self._beat_if_due(pause_s)))

    def _beat_if_due(self, pause_s: float) -> None:
        if not may_leave_out(self._quiet_state()):
            self._beat()
            return
        self.after(pause_s / LOOKS_PER_INTERVAL, self.calls.in_turn(lambda: self._beat_if_due(pause_s)))

    def _quiet_state(self) -> QuietState:
        return QuietState(
            timing=self.watch.timing.quiet,
            is_empty=self.runner.is_empty,
            is_answered=not self.calls.hears_nothing,
            is_leased=not self.watch.is_expired,
            has_news=bool(self._audit) or not self._has_beaten,
            silent_for_s=self.boot_s() - self._answered_at_s,
        )

    def _beat(self) -> None:
        assert self.session is not None
        request = HeartbeatCall(
            node_key=self.node_key,
            session=self.session,
            ended=tuple(self.runner.deletable(_ENDED_MOST)),
            missing=tuple(self.runner.lacks(self._audit)),
        )
        sent_at_s = self.boot_s()

        def failed(error: WindlassError) -> None:
            if isinstance(error, SessionLost | Denied):
                self.lose_session()
                return
            self._beat_failures += 1
            if self.watch.is_expired:
                self.runner.suspend()
            self.after(self.pause_s(self._beat_failures), self.calls.in_turn(self._beat))

        on_reply = self.calls.in_turn(lambda reply: self._beaten(reply, sent_at_s))
        on_error = self.calls.in_turn(failed)
        self.calls.call("Heartbeat", request, on_reply, on_error, self.watch.lease.call_deadline_s())

    def _beaten(self, reply: Beaten, sent_at_s: float) -> None:
        self._beat_failures = 0
        self.watch.renewed(self.runner, reply.timing, sent_at_s=sent_at_s)
        self._has_beaten, self._answered_at_s = True, self.boot_s()
        self._audit = reply.audit
        if reply.stops:
            self.stop(reply.stops)
        if reply.forgets:
            self.world.note("told to forget", self.name, reply.forgets)
            self.forget(reply.forgets)
        failpoints.reach("agent.heartbeat.after_reply")
        self._beat_later()

    def stop(self, stops: Sequence[AttemptRef]) -> None:
        """As an answer said."""
        self.world.note("told to stop", self.name, stops)
        self.runner.stop(stops)

    def forget(self, refs: Sequence[AttemptRef]) -> None:
        """As an answer said."""
        self.node.ledger.may_forget(self.node, refs)
        self.runner.forget(refs)

    # Leaving

    def preempt(self, within_s: float) -> None:
        """The provider takes the machine away in so long."""
        if self.session is None:
            return
        self.world.note("preempted", self.name, within_s)
        self._leaving = "preempted"
        self.runner.preempt(within_s)
        self._leave_when_done()

    def _leave_when_done(self) -> None:
        if not self._leaving or self.session is None:
            return
        if not self.runner.has_left:
            self.after(_LEAVE_LOOK_S, self.calls.in_turn(self._leave_when_done))
            return
        failpoints.reach("agent.leave.before")
        request = LeaveCall(node_key=self.node_key, session=self.session, reason=self._leaving)
        self.calls.persist("Leave", request, lambda _: self.node.left())


def _result_of(adoption: Coroutine[None, None, SlotInventory]) -> SlotInventory:
    """Of a coroutine that never waits."""
    try:
        adoption.send(None)
    except StopIteration as end:
        found: SlotInventory = end.value
        return found
    raise AssertionError("a simulated slot waited")
