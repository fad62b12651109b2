"""The agent of a simulated node: the real attempt runner and cores, with scripted loops of the link.

The loops are those of `windlass_agent/link`, one method each instead of one task each; the runner, its queue,
its adoption of what an earlier life left, its journal of intents, its pending events and its lease clock
are the product's own.
"""

from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.agent_stand_ins import Intents, Signal
from tests.simulation.messages import (
    Beaten,
    HeartbeatCall,
    JoinCall,
    Joined,
    LeaveCall,
    OpenCall,
    Opened,
    PollCall,
    Polled,
    ReleaseCall,
    ReportCall,
    Reported,
)
from tests.simulation.network import Call, Network
from tests.simulation.settings import (
    CALL_TIMEOUT_S,
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
from windlass_agent.core.attempt_phases import PendingEvents
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
from windlass_proto.model.events import AttemptEvent, Happening
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.verdicts import InventoryVerdict

if TYPE_CHECKING:
    from tests.simulation.node import Node

_COALESCE_S = 0.05
_TICK_S = 0.5
_PATIENCE_S = 0.1
_LEAVE_LOOK_S = 0.2
_MOST_RELEASED = 1000
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
        self._turn = 0
        self._calls: dict[str, Call] = {}
        self._pending = PendingEvents()
        self._reporting: tuple[AttemptEvent, ...] = ()
        self._is_report_due = self._is_poll_due = self._is_releasing = False
        self._polling_want = -1
        self._poll_seq = self._losses = self._beat_failures = 0
        self._audit: tuple[AttemptRef, ...] = ()
        self._has_beaten, self._answered_at_s = False, 0.0
        self._poll_sent_at_s, self._hears_nothing = 0.0, False
        self._watch = LeaseWatch(clock=self.boot_s)
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
            events=self,
            logs=self.shipper,
            directory_of=disk.attempt,
            output_directory=lambda ref: str(disk.attempt(ref)),
            clock=self.boot_s,
        )
        known = {disk.attempt(ref).name for ref in self.intents.live}
        self.runner.throw_away([disk.attempts / name for name in disk.leftovers() if name not in known])
        self.runner.demand_changed = Signal(self._on_demand)  # type: ignore[assignment]  # no event loop
        self.runner._departures.release_due = Signal(self._release_soon)  # type: ignore[assignment]  # no event loop
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

    # Calls

    def pause_s(self, failures: int) -> float:
        return self._backoff.delay(failures, jitter=self.world.rng.random()).total_seconds()

    def _call(
        self,
        method: str,
        request: Any,
        on_reply: Callable[[Any], None],
        on_error: Callable[[WindlassError], None],
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        try:
            self._watch.check()
        except SessionLost as overslept:
            self.after(0.0, partial(on_error, overslept))
            return

        def replied(reply: Any) -> None:
            self._hears_nothing = False
            on_reply(reply)

        def failed(error: WindlassError) -> None:
            self._hears_nothing = isinstance(error, Unavailable)
            on_error(error)

        self._calls[method] = self.network.call(
            self,
            self.node.path,
            method,
            request,
            timeout_s=timeout_s,
            on_reply=replied,
            on_error=failed,
        )

    def _persist(
        self,
        method: str,
        request: Any,
        on_reply: Callable[[Any], None],
        *,
        failures: int = 0,
        timeout_s: float = CALL_TIMEOUT_S,
        on_send: Callable[[], None] = lambda: None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """The same request again and again while the coordinator cannot be reached, in this session, unless
        it is abandoned meanwhile."""
        if not is_wanted():
            return
        turn = self._turn
        on_send()

        def failed(error: WindlassError) -> None:
            if turn != self._turn:
                return
            if isinstance(error, SessionLost | Denied):
                self._lose_session()
                return
            assert isinstance(error, Unavailable), f"{method} of {self.name} was refused: {error}"
            again = partial(
                self._persist,
                method,
                request,
                on_reply,
                failures=failures + 1,
                timeout_s=timeout_s,
                on_send=on_send,
                is_wanted=is_wanted,
            )
            self.after(self.pause_s(failures + 1), self._in_turn(again))

        self._call(method, request, self._in_turn(on_reply), failed, timeout_s)

    def _in_turn(self, what: Callable[..., None]) -> Callable[..., None]:
        """Does nothing once the session is another one."""
        turn = self._turn

        def do(*values: Any) -> None:
            if turn == self._turn:
                what(*values)

        return do

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

        self._call("Join", request, joined, again)

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

        self._call("OpenSession", request, lambda reply: self._opened(reply, sent_at_s), refused)

    def _opened(self, reply: Opened, sent_at_s: float) -> None:
        failpoints.reach("agent.session.after_reply")
        identity = self.node.disk.identity
        identity.last_nonce = reply.nonce
        self.world.note("session", self.name, reply.epoch, [(v.ref, v.verdict) for v in reply.verdicts])
        for item in reply.verdicts:
            if item.verdict in (InventoryVerdict.KILL, InventoryVerdict.FORGET):
                self.node.ledger.may_forget(self.node, [item.ref])
        self._watch.opened(self.runner, reply.timing, sent_at_s=sent_at_s)
        self.runner.obey(reply.verdicts)
        self._turn += 1
        assert identity.node_id is not None
        self.session = SessionRef(node_id=identity.node_id, node_epoch=reply.epoch, nonce=reply.nonce)
        self._has_beaten = False
        self._lease_s = reply.timing.lease.total_seconds()
        self._opened_at_s = self.boot_s()
        self._poll_seq, self._polling_want = 0, -1
        self._is_poll_due = self._is_releasing = False
        self._reporting = ()
        self.shipper.begin()
        self._beat_later()
        self._poll_soon()
        self._report_soon()
        self._release_soon()
        self.after(_TICK_S, self._in_turn(self._tick))
        self._leave_when_done()

    def _tick(self) -> None:
        try:
            self._watch.check()
        except SessionLost:
            self._lose_session()
            return
        self._watch._seen_s = self.boot_s()
        if self._watch.is_expired:
            self.runner.suspend()
        self.after(_TICK_S, self._in_turn(self._tick))

    def _lose_session(self) -> None:
        """One of the loops has found it lost: the others end, and a new one is opened."""
        self.world.note("session lost", self.name)
        self._turn += 1
        self.session = None
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.cancel()
        if self._reporting:
            self._pending.put_back(self._reporting)
            self._reporting = ()
        self.shipper.suspend()
        self._watch.closed()
        self.runner.suspend()
        lasted_s = self.boot_s() - self._opened_at_s
        self._losses = 1 if lasted_s > self._lease_s else self._losses + 1
        self.after(self.pause_s(self._losses), self._open)

    # Heartbeats

    def _beat_later(self) -> None:
        pause_s = self._watch.lease.pause_s(jitter=self.world.rng.random())
        self.after(pause_s, self._in_turn(lambda: self._beat_if_due(pause_s)))

    def _beat_if_due(self, pause_s: float) -> None:
        if not may_leave_out(self._quiet_state()):
            self._beat()
            return
        self.after(pause_s / LOOKS_PER_INTERVAL, self._in_turn(lambda: self._beat_if_due(pause_s)))

    def _quiet_state(self) -> QuietState:
        return QuietState(
            timing=self._watch.timing.quiet,
            is_empty=self.runner.is_empty,
            is_answered=not self._hears_nothing,
            is_leased=not self._watch.is_expired,
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
        sent_at_s, turn = self.boot_s(), self._turn

        def failed(error: WindlassError) -> None:
            if turn != self._turn:
                return
            if isinstance(error, SessionLost | Denied):
                self._lose_session()
                return
            self._beat_failures += 1
            if self._watch.is_expired:
                self.runner.suspend()
            self.after(self.pause_s(self._beat_failures), self._in_turn(self._beat))

        on_reply = self._in_turn(lambda reply: self._beaten(reply, sent_at_s))
        self._call("Heartbeat", request, on_reply, failed, self._watch.lease.call_deadline_s())

    def _beaten(self, reply: Beaten, sent_at_s: float) -> None:
        self._beat_failures = 0
        self._watch.renewed(self.runner, reply.timing, sent_at_s=sent_at_s)
        self._has_beaten, self._answered_at_s = True, self.boot_s()
        self._audit = reply.audit
        if reply.stops:
            self.world.note("told to stop", self.name, reply.stops)
            self.runner.stop(reply.stops)
        if reply.forgets:
            self.world.note("told to forget", self.name, reply.forgets)
            self.node.ledger.may_forget(self.node, reply.forgets)
            self.runner.forget(reply.forgets)
        failpoints.reach("agent.heartbeat.after_reply")
        self._beat_later()

    # Polls

    def _on_demand(self) -> None:
        """There may be room: a poll that wants nothing is abandoned for one that does."""
        if self.session is None or self._polling_want > 0:
            return
        if self._polling_want == 0 and not self.runner.demand().is_urgent:
            return
        if self._polling_want == 0:
            self._calls["Poll"].cancel()
            self._polling_want = -1
        self._poll_soon()

    def _poll_soon(self) -> None:
        if self.session is None or self._is_poll_due or self._polling_want >= 0:
            return
        self._is_poll_due = True
        delay = 0.001 if self.runner.demand().is_urgent else _PATIENCE_S
        self.after(delay, self._in_turn(self._poll))

    def _poll(self) -> None:
        assert self.session is not None
        self._is_poll_due = False
        self._poll_seq += 1
        self._polling_want = self.runner.demand().want
        is_empty, timing = self.runner.is_empty, self._watch.timing
        assert timing.quiet is not None
        wait = timing.quiet.poll_wait if is_empty else timing.poll_wait
        request = PollCall(
            node_key=self.node_key,
            session=self.session,
            poll_seq=self._poll_seq,
            want=self._polling_want,
            wait=wait,
            is_empty=is_empty,
        )
        self._persist(
            "Poll",
            request,
            self._polled,
            timeout_s=wait.total_seconds() + CALL_TIMEOUT_S,
            on_send=self._note_poll_sent,
            is_wanted=lambda: request.poll_seq == self._poll_seq and self._polling_want >= 0,
        )

    def _note_poll_sent(self) -> None:
        self._poll_sent_at_s = self.boot_s()

    def _polled(self, reply: Polled) -> None:
        self._polling_want = -1
        self._watch.renewed(self.runner, reply.timing or self._watch.timing, sent_at_s=self._poll_sent_at_s)
        if reply.batches:
            self.runner.accept(reply.batches)
            failpoints.reach("agent.poll.after_accept")
        if reply.stops:
            self.world.note("told to stop", self.name, reply.stops)
            self.runner.stop(reply.stops)
        self._poll_soon()

    # Reports

    @property
    def has_told_all(self) -> bool:
        return not self._pending and not self._reporting

    def tell(self, ref: AttemptRef, what: Happening) -> None:
        self._pending.add(ref, what)
        self._report_soon()

    def drop(self, ref: AttemptRef) -> None:
        self._pending.drop(ref)

    def _report_soon(self) -> None:
        if self.session is None or self._reporting or self._is_report_due or not self._pending:
            return
        self._is_report_due = True
        is_urgent = self._pending.has_result and not self.runner.has_queued
        self.after(0.0 if is_urgent else _COALESCE_S, self._report)

    def _report(self) -> None:
        self._is_report_due = False
        if self.session is None or self._reporting:
            return
        self._reporting = tuple(self._pending.take(2000))
        if not self._reporting:
            return
        request = ReportCall(node_key=self.node_key, session=self.session, events=self._reporting)
        self._persist("Report", request, self._reported)

    def _reported(self, reply: Reported) -> None:
        failpoints.reach("agent.report.after_reply")
        events, self._reporting = self._reporting, ()
        self.world.note(
            "reported",
            self.name,
            [(e.ref, type(e.what).__name__, v) for e, v in zip(events, reply.verdicts, strict=True)],
        )
        for event, verdict in zip(events, reply.verdicts, strict=True):
            self.runner.answered(event, verdict)
        forgotten = [events[position].ref for position in reply.forget]
        self.node.ledger.may_forget(self.node, forgotten)
        self.runner.forget(forgotten)
        self._report_soon()

    # Releases

    def _release_soon(self) -> None:
        if self.session is not None and not self._is_releasing:
            self._is_releasing = True
            self.after(0.0, self._in_turn(self._release))

    def _release(self) -> None:
        assert self.session is not None
        refs = tuple(self.runner.to_release(_MOST_RELEASED))
        if not refs:
            self._is_releasing = False
            return

        def released(answers: Sequence[bool]) -> None:
            self.world.note("released", self.name, list(zip(refs, answers, strict=True)))
            self.node.ledger.may_forget(self.node, refs)
            for ref, accepted in zip(refs, answers, strict=True):
                self.runner.released(ref, accepted=accepted)
            self._release()

        request = ReleaseCall(node_key=self.node_key, session=self.session, refs=refs)
        self._persist("Release", request, released)

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
            self.after(_LEAVE_LOOK_S, self._in_turn(self._leave_when_done))
            return
        failpoints.reach("agent.leave.before")
        request = LeaveCall(node_key=self.node_key, session=self.session, reason=self._leaving)
        self._persist("Leave", request, lambda _: self.node.left())


def _result_of(adoption: Coroutine[None, None, SlotInventory]) -> SlotInventory:
    """Of a coroutine that never waits."""
    try:
        adoption.send(None)
    except StopIteration as end:
        found: SlotInventory = end.value
        return found
    raise AssertionError("a simulated slot waited")
