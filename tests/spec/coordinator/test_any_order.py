"""Whatever happens in whatever order, the invariants hold and every job can end.

Hypothesis chooses the order; the invariants of protocol.md are checked after each step by the builder
(`tests.support.invariants`), which believes no counter. A failure prints the steps that lead to it.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.builders import Machine, a_job, a_task, exits, holds, told
from tests.support.coordinator import InMemoryCoordinator
from tests.support.examples import examples
from windlass_coordinator.engine.publish_outputs import Commit
from windlass_proto.errors import Conflict, NotFound, SessionLost
from windlass_proto.model.events import (
    Exited,
    Finalized,
    FinalizeFailed,
    Happening,
    LostOnNode,
    PrepareFailed,
    Preparing,
    Started,
    StoppedEarly,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.model.specs import JobSpec, TaskSpec
from windlass_proto.model.verdicts import EventVerdict

T = TypeVar("T")

MOST_JOBS = 4
NO_CHANGE = {
    EventVerdict.DUPLICATE,
    EventVerdict.SUPERSEDED,
    EventVerdict.CONFLICT,
    EventVerdict.UNKNOWN,
}

HAPPENINGS: list[Happening] = [
    Preparing(),
    Started(),
    exits(0),
    exits(0),
    exits(0, finalizing=True),
    exits(7),
    Exited(code=None, signal=15, stopped=True),
    Finalized(),
    FinalizeFailed(reason="no such bucket"),
    PrepareFailed(kind=FailureKind.USER_CONFIG, reason="no such command"),
    StoppedEarly(),
    LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed"),
]
happenings = st.sampled_from(HAPPENINGS)
which = st.integers(0, 1)


@st.composite
def jobs(draw: st.DrawFn) -> JobSpec:
    """Up to four tasks, each after some of those before it."""
    tasks: list[TaskSpec] = []
    for position in range(draw(st.integers(1, 4))):
        names = [task.name for task in tasks]
        tasks.append(
            a_task(
                f"t{position}",
                after=draw(st.lists(st.sampled_from(names), unique=True)) if names else (),
                instances=draw(st.sampled_from([1, 2, 12])),
                max_retries=draw(st.integers(0, 2)),
            )
        )
    return a_job(*tasks, fail_on_instance_failure=draw(st.booleans()), priority=draw(st.integers(0, 2)))


class AnyOrder(RuleBasedStateMachine):
    """Two nodes, a few jobs, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = InMemoryCoordinator()
        self.nodes: list[Machine] = []
        self.acknowledged: dict[str, JobId] = {}
        self.deleted: set[JobId] = set()
        self.told: list[tuple[Machine, list[tuple[AttemptRef, Happening]]]] = []

    @initialize(first=jobs(), second=jobs())
    def two_nodes_and_two_jobs(self, first: JobSpec, second: JobSpec) -> None:
        self.nodes = [self.coordinator.node(), self.coordinator.node()]
        self.submit(first)
        self.submit(second)

    # Users

    @precondition(lambda self: len(self.acknowledged) < MOST_JOBS)
    @rule(spec=jobs())
    def submit(self, spec: JobSpec) -> None:
        key = f"key-{len(self.acknowledged)}"
        self.acknowledged[key] = self.coordinator.submit(spec, key=key)
        again = self.coordinator.submit_again(spec, key=key)
        assert (again.job_id, again.already_existed) == (self.acknowledged[key], True)

    @rule(data=st.data(), verb=st.sampled_from(["stop", "priority"]))
    def steer(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from(sorted(self.acknowledged.values())))
        try:
            if verb == "stop":
                self.coordinator.stop(job)
            else:
                self.coordinator.set_priority(job, 9)
        except Conflict:
            pass
        except NotFound:
            assert job in self.deleted

    @rule(data=st.data(), all_instances=st.booleans())
    def restart(self, data: st.DataObject, all_instances: bool) -> None:
        ended = self.coordinator.rows(
            "SELECT job_id, state FROM jobs WHERE ended_at IS NOT NULL AND deleted_at IS NULL"
        )
        if ended:
            job, state = data.draw(st.sampled_from(ended))
            try:
                self.coordinator.restart(job, all_instances=all_instances)
            except Conflict:
                assert (state, all_instances) == ("SUCCEEDED", False)

    @precondition(lambda self: len(self.acknowledged) == MOST_JOBS)
    @rule(data=st.data(), stop_first=st.booleans())
    def delete(self, data: st.DataObject, stop_first: bool) -> None:
        job = data.draw(st.sampled_from(sorted(self.acknowledged.values())))
        try:
            self.coordinator.delete(job, stop_first=stop_first)
            self.deleted.add(job)
        except Conflict:
            assert not stop_first
        except NotFound:
            assert job in self.deleted

    # Nodes

    @rule(data=st.data(), node=which, want=st.sampled_from([1, 3, 30]))
    def work(self, data: st.DataObject, node: int, want: int) -> None:
        """Claims, and tells of some of it what may come of it."""
        machine = self.nodes[node]
        refs = self._in_session(machine, lambda: self.coordinator.claim(machine, want=want))
        assert len(refs) <= want
        assert sorted(self.coordinator.poll_again(machine)) == sorted(refs)
        news = [(ref, data.draw(happenings)) for ref in refs[: data.draw(st.integers(0, 30))]]
        self._report(machine, news)

    @rule(data=st.data(), node=which)
    def report(self, data: st.DataObject, node: int) -> None:
        """Several events in one report; of old attempts as of new ones."""
        machine = self.nodes[node]
        if machine.held:
            refs = st.sampled_from(machine.held[-12:] + machine.held[:2])
            news = data.draw(st.lists(st.tuples(refs, happenings), min_size=1, max_size=6))
            self._report(machine, news)

    @rule(node=which, code=st.sampled_from([0, 7]))
    def finish_all(self, node: int, code: int) -> None:
        machine = self.nodes[node]
        self._report(machine, [(ref, exits(code)) for ref in machine.held])

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def report_again(self, data: st.DataObject) -> None:
        machine, news = data.draw(st.sampled_from(self.told[-10:]))
        self._report(machine, news)

    @rule(data=st.data(), node=which)
    def report_of_the_other_nodes_attempt(self, data: st.DataObject, node: int) -> None:
        other = self.nodes[1 - node]
        if other.held:
            ref = data.draw(st.sampled_from(other.held))
            self._report(self.nodes[node], [(ref, exits(0))], expect={EventVerdict.UNKNOWN})

    @rule(data=st.data(), node=which)
    def release(self, data: st.DataObject, node: int) -> None:
        machine = self.nodes[node]
        if machine.held:
            refs = data.draw(st.lists(st.sampled_from(machine.held[-12:]), max_size=3))
            self._in_session(machine, lambda: self.coordinator.release(machine, *refs))

    @rule(data=st.data(), node=which, of_failed_command=st.booleans())
    def publish(self, data: st.DataObject, node: int, of_failed_command: bool) -> None:
        """Only who holds the instance may, however old its question (I12)."""
        machine = self.nodes[node]
        other = self.nodes[1 - node]
        known = [*machine.held[-6:], *machine.held[:2], *other.held[-2:]]
        if not known:
            return
        ref = data.draw(st.sampled_from(known))

        def ask() -> Commit:
            return self.coordinator.commit_outputs(machine, ref, of_failed_command=of_failed_command)

        granted = self._in_session(machine, ask).verdict.granted
        holders = self.coordinator.rows(
            "SELECT a.state FROM attempts a JOIN instances i ON (i.task_key, i.idx) = (a.task_key, a.idx) "
            "WHERE (a.task_key, a.idx, a.attempt, a.fence) = (?, ?, ?, ?) AND a.node_key = ? "
            "AND a.ended_at IS NULL AND a.detached = 0 AND i.fence = a.fence AND i.attempt = a.attempt",
            *(ref.task_key, ref.index, ref.attempt, ref.fence, machine.key),
        )
        good = {"FINALIZING"} | ({"LEASED", "PREPARING", "RUNNING"} if of_failed_command else set())
        assert granted == any(state in good for (state,) in holders), "I12"

    @rule(data=st.data(), node=which)
    def open_session(self, data: st.DataObject, node: int) -> None:
        """With an inventory that has forgotten some attempts, and remembers some that are long gone."""
        machine = self.nodes[node]
        forgotten = data.draw(st.sets(st.sampled_from(machine.held), max_size=5)) if machine.held else set()
        has_exit = data.draw(st.booleans())
        listed = [holds(ref, has_exit=has_exit) for ref in machine.held if ref not in forgotten]
        opened = self.coordinator.open_session(machine, *listed)
        assert [item.ref for item in opened.verdicts] == [item.ref for item in listed]

    @rule(node=which, for_good=st.booleans())
    def be_silent(self, node: int, for_good: bool) -> None:
        self.coordinator.mark_silent(self.nodes[node])
        if for_good:
            self.coordinator.replace(self.nodes[node])

    # Time

    @rule(seconds=st.sampled_from([0.5, 5, 600]))
    def wait(self, seconds: float) -> None:
        self.coordinator.later(timedelta(seconds=seconds))
        self.coordinator.ready_due()

    # What must hold

    @invariant()
    def every_acknowledged_job_is_there_and_no_other(self) -> None:
        stored = {row[0] for row in self.coordinator.rows("SELECT job_id FROM jobs")}
        assert stored == set(self.acknowledged.values()), "I8"

    def teardown(self) -> None:
        """When faults end, every job ends (L1)."""
        try:
            self._let_all_end()
        finally:
            self.coordinator.store.close()

    def _let_all_end(self) -> None:
        for node in self.nodes:
            self.coordinator.open_session(node)
        for _ in range(30):
            self.coordinator.later(timedelta(minutes=10))
            self.coordinator.ready_due()
            for node in self.nodes:
                self.coordinator.finish(node)
        alive = self.coordinator.rows("SELECT state FROM jobs WHERE ended_at IS NULL")
        assert alive == [], "L1"

    def _in_session(self, machine: Machine, call: Callable[[], T]) -> T:
        """Like an agent: when the session is lost it opens another and lists all that it has."""
        try:
            return call()
        except SessionLost:
            self.coordinator.open_session(machine, *(holds(ref) for ref in machine.held))
            return call()

    def _report(
        self,
        machine: Machine,
        news: list[tuple[AttemptRef, Happening]],
        *,
        expect: set[EventVerdict] | None = None,
    ) -> None:
        events = [told(ref, what) for ref, what in news]
        self.told.append((machine, news))
        before: list[Any] = []

        def call() -> list[EventVerdict]:
            before[:] = self._everything()
            return self.coordinator.report_all(machine, events)

        verdicts = self._in_session(machine, call)
        assert expect is None or set(verdicts) <= expect
        if set(verdicts) <= NO_CHANGE:
            assert self._everything() == before, f"I6: {verdicts}"

    def _everything(self) -> list[Any]:
        tables = ("jobs", "tasks", "instances", "attempts", "ready_again")
        return [self.coordinator.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(12, steps=40)
