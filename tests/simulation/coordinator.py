"""The coordinator of a simulated run: the real verbs, fleet, parked polls and log store, served one by one.

It does what `rpc/agent_service.py`, `rpc/job_service.py` and `duties.py` do, in the same order, without an
event loop: a verb waits for the next commit, its outcome is told after that commit.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests.simulation.coordinator_duties import ClockWatch, DrainWatch, RetryTimer, SilenceWatch
from tests.simulation.coordinator_polls import PollService
from tests.simulation.log_intake import LogIntake
from tests.simulation.messages import (
    Beaten,
    HeartbeatCall,
    JoinCall,
    Joined,
    LeaveCall,
    OpenCall,
    Opened,
    OperateCall,
    ReleaseCall,
    ReportCall,
    Reported,
    SteerCall,
    SubmitCall,
)
from tests.simulation.network import Connection, Network
from tests.simulation.settings import LEASE, RETRY
from tests.simulation.store import Order, SimulatedStore
from tests.simulation.world import Clock, KilledHere, Process, World
from windlass_coordinator.app import _MAY_HAVE_WORK
from windlass_coordinator.engine import nodes, steer
from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.engine.last_looks import LastLooks
from windlass_coordinator.engine.nodes import (
    attempts_to_audit,
    attempts_to_end,
    settle_missing,
)
from windlass_coordinator.engine.parking import ParkedPolls
from windlass_coordinator.engine.report import report
from windlass_coordinator.engine.revoke import release
from windlass_coordinator.engine.session import NewNode, OpenRequest, current_node, join, leave, open_session
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.submit import Submission, Submitted, submit
from windlass_coordinator.logstore.files import FileLogStore
from windlass_coordinator.rpc.agent_messages import forgettable
from windlass_coordinator.rpc.agent_service import log_facts
from windlass_coordinator.rpc.log_archive import LogArchive
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints
from windlass_proto.errors import Denied, WindlassError
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef, JobId, NodeId, NodeKey
from windlass_proto.model.verdicts import EventVerdict

_COMMIT_S = (0.0005, 0.004)
"""Verbs gather for so long; a commit and its fsync."""


class Coordinator(Process):
    """One coordinator process; its store and its log files outlive it."""

    admit = staticmethod(current_node)
    """Whose reports are heard."""

    def __init__(self, world: World, network: Network, clock: Clock, *, log_root: Path) -> None:
        super().__init__(world, "coordinator", clock)
        self.store = SimulatedStore(world)
        self.network = network
        self.log_root = log_root
        self.rules = Rules(retry=RETRY, jitter=world.rng.random)
        self.on_commit: Callable[[Sequence[Order]], None] = lambda _: None
        self.cut_power_in_next_commit = False
        self._made = 0
        self._orders: list[Order] = []
        network.server = self
        network.handlers = {
            "Join": self._join,
            "OpenSession": self._open_session,
            "Poll": lambda request, connection: self.polls.poll(request, connection),
            "Report": self._report,
            "Heartbeat": self._heartbeat,
            "AppendLog": lambda request, connection: self.intake.append(request, connection),
            "Release": self._release,
            "Leave": self._leave,
            "Submit": self._submit,
            "Steer": self._steer,
            "Operate": self._operate,
        }

    # Its lives

    def start(self) -> None:
        super().start()
        self._orders = []
        self.fleet = Fleet(LEASE, monotonic=self.boot_s)
        self.parked = ParkedPolls(clock=self.wall, looks=LastLooks(monotonic=self.boot_s))
        self.logs = FileLogStore(self.log_root, max_open_streams=8)
        self.archive = LogArchive(self.logs, clock=lambda: self.world.now)
        self.intake = LogIntake(self, self.logs)
        self.polls = PollService(self)
        self.timer = RetryTimer(self)
        self.silence = SilenceWatch(self)
        self.drains = DrainWatch(self)
        self.clock_watch = ClockWatch(self)
        self._audits_due_s: dict[NodeKey, float] = {}
        self.run(
            lambda tx: tx.nodes_in(_MAY_HAVE_WORK),
            self._expect,
            lambda _: self.die(),
            "start",
        )

    def _expect(self, nodes: Sequence[NodeKey]) -> None:
        for node_key in nodes:
            self.fleet.expect(node_key)
        self.timer.start()
        self.silence.start()
        self.drains.start()
        self.clock_watch.start()

    def die(self) -> None:
        if not self.is_alive:
            return
        super().die()
        self._orders = []
        self.logs.close()
        self.network.server_died()

    def lose_power(self) -> None:
        """What was not synced is gone, down to any byte of it."""
        ends = {
            stream._path: stream.layout.position(stream.durable_end) for stream in self.logs._open.values()
        }
        self.die()
        for path, durable in ends.items():
            size = path.stat().st_size if path.exists() else 0
            if size > durable:
                kept = self.world.rng.randint(durable, size)
                with path.open("r+b") as file:
                    file.truncate(kept)

    def fresh(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}-{self._made:06x}"

    # Verbs and commits

    def run(
        self,
        verb: Callable[[Transaction], Any],
        on_done: Callable[[Any], None],
        on_error: Callable[[WindlassError], None],
        actor: str,
    ) -> None:
        """The verb runs in the next commit; its outcome is told after it."""
        self._orders.append(Order(verb, on_done, on_error, actor))
        if len(self._orders) == 1:
            self.after(self.world.rng.uniform(*_COMMIT_S), self._commit)

    def _commit(self) -> None:
        orders, self._orders = self._orders, []
        cut, self.cut_power_in_next_commit = self.cut_power_in_next_commit, False
        try:
            done = self.store.commit(orders, self.parked.follow, cut_power=cut)
        except KilledHere:
            self.on_commit(orders)
            raise
        self.on_commit(orders)
        failpoints.reach("coord.commit.after_commit")
        for outcome in done.outcomes:
            outcome()
        for delivery in done.deliveries:
            delivery()
        self.parked.forget_changed(done.wakes)
        if done.wakes.due is not None:
            self.timer.arm(done.wakes.due)
        for job_id in sorted(done.wakes.deleted_jobs):
            self.after(0.05, partial(self.logs.delete_job, job_id))

    def _serve(
        self,
        connection: Connection,
        verb: Callable[[Transaction], Any],
        answer: Callable[[Any], Any],
        name: str,
    ) -> None:
        """Runs the verb, tells the client what `answer` makes of its outcome."""

        def on_done(outcome: Any) -> None:
            failpoints.reach(f"coord.{name}.after_commit")
            connection.reply(answer(outcome))

        self.run(verb, on_done, connection.fail, connection.name)

    # What agents call

    def _join(self, request: JoinCall, connection: Connection) -> None:
        new = NewNode(
            node_id=NodeId(self.fresh("node")),
            credential_kind="wln",
            credential_id=self.fresh("credential"),
            credential_digest="digest",
        )

        def verb(tx: Transaction) -> NodeKey:
            token = tx.credential(request.token_id)
            if token is None:
                raise Denied("the join token is unknown")
            return join(tx, token, request.facts, new, now=self.wall())

        self._serve(connection, verb, lambda key: Joined(node_key=key, node_id=new.node_id), "join")

    def _open_session(self, request: OpenCall, connection: Connection) -> None:
        opening = OpenRequest(
            state_id=request.state_id,
            boot_id=request.boot_id,
            last_nonce=request.last_nonce,
            facts=request.facts,
            inventory=request.inventory,
        )
        nonce = self.fresh("nonce")

        def verb(tx: Transaction) -> Any:
            node = tx.node_view(request.node_key)
            if node is None or node.node_id != request.node_id:
                raise Denied("this node is not known here: join again")
            opened = open_session(
                tx,
                node,
                opening,
                nonce=nonce,
                logs_stored=self.archive.is_stored,
                rules=self.rules,
                now=self.wall(),
            )
            return node, opened

        def answer(outcome: Any) -> Opened:
            node, opened = outcome
            self.world.note("opened", node.name, opened.epoch, request.last_nonce, "->", opened.nonce)
            self.polls.begin(request.node_key, node.cluster_key, request.facts.capacity)
            self.fleet.hear(request.node_key)
            return Opened(
                epoch=opened.epoch,
                nonce=opened.nonce,
                timing=self.fleet.timing(),
                verdicts=tuple(opened.verdicts),
            )

        self._serve(connection, verb, answer, "session")

    def _report(self, request: ReportCall, connection: Connection) -> None:
        def verb(tx: Transaction) -> list[EventVerdict]:
            node = self.admit(tx, request.node_key, request.session)
            return report(tx, node, request.events, rules=self.rules, now=self.wall())

        def answer(verdicts: list[EventVerdict]) -> Reported:
            return Reported(verdicts=tuple(verdicts), forget=tuple(forgettable(request.events, verdicts)))

        self._serve(connection, verb, answer, "report")

    def _heartbeat(self, request: HeartbeatCall, connection: Connection) -> None:
        node_key, deadline = request.node_key, self.fleet.accept_deadline
        is_quiet = not request.missing and self.parked.is_quiet(node_key, request.session, reason="")
        audits = not is_quiet and self.boot_s() >= self._audits_due_s.get(node_key, 0.0)
        if audits:
            self._audits_due_s[node_key] = self.boot_s() + deadline.total_seconds() / 4

        def verb(tx: Transaction) -> tuple[list[AttemptRef], list[AttemptRef]]:
            now = self.wall()
            node = current_node(tx, node_key, request.session)
            settle_missing(tx, node, request.missing, rules=self.rules, now=now)
            audit = attempts_to_audit(tx, node, accept_deadline=deadline, now=now) if audits else []
            return attempts_to_end(tx, node, now=now), audit

        def on_done(outcome: tuple[list[AttemptRef], list[AttemptRef]]) -> None:
            self.run(
                lambda tx: log_facts(tx, request.ended),
                lambda known: self._beaten(request, connection, outcome, known),
                connection.fail,
                connection.name,
            )

        if is_quiet:
            on_done(([], []))
        else:
            self.run(verb, on_done, connection.fail, connection.name)

    def _beaten(self, request: HeartbeatCall, connection: Connection, outcome: Any, known: Any) -> None:
        settled = self.archive.which_are_settled(known)
        stops, audit = outcome
        self.fleet.hear(request.node_key)
        ended = zip(request.ended, settled, strict=True)
        connection.reply(
            Beaten(
                timing=self.fleet.timing(),
                stops=tuple(stops),
                forgets=tuple(ref for ref, is_settled in ended if is_settled),
                audit=tuple(audit),
            )
        )

    def _release(self, request: ReleaseCall, connection: Connection) -> None:
        def verb(tx: Transaction) -> list[bool]:
            node = current_node(tx, request.node_key, request.session)
            return release(tx, node, list(request.refs), rules=self.rules, now=self.wall())

        self._serve(connection, verb, tuple, "release")

    def _leave(self, request: LeaveCall, connection: Connection) -> None:
        def verb(tx: Transaction) -> None:
            node = current_node(tx, request.node_key, request.session)
            leave(tx, node, reason=request.reason, rules=self.rules, now=self.wall())

        def answer(_: None) -> None:
            self.fleet.forget(request.node_key)

        self._serve(connection, verb, answer, "leave")

    # What users call

    def _submit(self, request: SubmitCall, connection: Connection) -> None:
        submission = Submission(
            tenant=DEFAULT_TENANT,
            spec=request.spec,
            idempotency_key=request.idempotency_key,
            job_id=JobId(self.fresh("job")),
        )

        def answer(done: Submitted) -> JobId:
            return done.job_id

        self._serve(connection, lambda tx: submit(tx, submission, now=self.wall()), answer, "submit")

    def _steer(self, request: SteerCall, connection: Connection) -> None:
        tenant, job_id = DEFAULT_TENANT, request.job_id

        def verb(tx: Transaction) -> None:
            match request.verb:
                case "stop":
                    steer.stop(tx, tenant, job_id, now=self.wall())
                case "restart":
                    steer.restart(tx, tenant, job_id, all_instances=bool(request.number), now=self.wall())
                case "delete":
                    steer.delete(tx, tenant, job_id, stop_first=bool(request.number), now=self.wall())
                case "priority":
                    steer.update_priority(tx, tenant, job_id, priority=request.number, now=self.wall())

        self._serve(connection, verb, lambda _: None, request.verb)

    def _operate(self, request: OperateCall, connection: Connection) -> None:
        def verb(tx: Transaction) -> None:
            now = self.wall()
            if request.verb == "resume":
                nodes.resume(tx, DEFAULT_TENANT, request.node_id, now=now)
                return
            within = None if request.within_s is None else timedelta(seconds=request.within_s)
            nodes.drain(tx, DEFAULT_TENANT, request.node_id, within=within, now=now)

        self._serve(connection, verb, lambda _: None, request.verb)
