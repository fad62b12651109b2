"""Idle nodes are answered from memory, and never with what a commit has changed meanwhile."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.records import NodeView, Wakes
from windlass_coordinator.engine.last_looks import LastLooks
from windlass_coordinator.engine.parking import ParkedPoll, ParkedPolls
from windlass_coordinator.stores.base import Delivery, Transaction
from windlass_proto.model.events import Started


class Looking:
    """Machines of the default cluster that poll; what was seen is remembered."""

    def __init__(self, coordinator: InMemoryCoordinator) -> None:
        self.coordinator = coordinator
        self.seconds = 0.0
        self.parked = ParkedPolls(
            clock=lambda: coordinator.now, looks=LastLooks(monotonic=lambda: self.seconds)
        )
        coordinator.store.listen(follow=self._follow, after_commit=lambda _: None)
        self._loop = asyncio.new_event_loop()
        self._made: list[Delivery] = []
        self._polls: list[ParkedPoll] = []

    def _follow(self, tx: Transaction, wakes: Wakes) -> list[Delivery]:
        made = list(self.parked.follow(tx, wakes))
        self._made += made
        return made

    def poll(self, machine: Machine, *, want: int = 1) -> bool:
        """False when the store had to be asked."""
        poll = self._poll(machine, want)
        if self.parked.park(poll):
            return True
        self.nudge(machine)
        self.commit_is_told()
        return False

    def begin_poll(self, machine: Machine) -> None:
        assert not self.parked.park(self._poll(machine, 1))

    def withdraw_all(self) -> None:
        polls, self._polls = self._polls, []
        for poll in polls:
            self.parked.withdraw(poll)

    def commit_failed(self) -> None:
        made, self._made = self._made, []
        for delivery in made:
            delivery.take_back()

    def nudge(self, machine: Machine) -> None:
        def verb(tx: Transaction) -> None:
            tx.confirm_session(machine.key)
            tx.wakes.nodes.add(machine.key)

        self.coordinator.run(verb)

    def commit_is_told(self) -> None:
        made, self._made = self._made, []
        for delivery in made:
            delivery()

    def is_quiet(self, machine: Machine, *, reason: str = "") -> bool:
        return self.parked.is_quiet(machine.key, machine.session, reason=reason)

    def _poll(self, machine: Machine, want: int) -> ParkedPoll:
        node = self._view(machine)
        machine.poll_seq += 1
        poll = ParkedPoll(
            node_key=machine.key,
            cluster_key=node.cluster_key,
            capacity=node.capacity,
            epoch=machine.epoch,
            nonce=machine.nonce,
            poll_seq=machine.poll_seq,
            want=want,
            reply=self._loop.create_future(),
        )
        self._polls.append(poll)
        return poll

    def _view(self, machine: Machine) -> NodeView:
        node = self.coordinator.run(lambda tx: tx.node_view(machine.key))
        assert node is not None
        return node

    def holders(self) -> list[object]:
        """The machines that have a live attempt."""
        return [
            key for (key,) in self.coordinator.rows("SELECT node_key FROM attempts WHERE ended_at IS NULL")
        ]

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def looking(coordinator: InMemoryCoordinator) -> Iterator[Looking]:
    found = Looking(coordinator)
    yield found
    found.close()


def test_a_node_that_found_nothing_polls_again_without_a_look(looking: Looking) -> None:
    machine = looking.coordinator.node()

    assert [looking.poll(machine), looking.poll(machine)] == [False, True]
    assert looking.is_quiet(machine)


def test_a_poll_that_parked_without_a_look_is_served_by_the_next_submit(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)
    assert looking.poll(machine)

    looking.coordinator.submit(a_job(a_task()))

    assert looking.holders() == [machine.key]


def test_work_that_came_while_no_poll_was_parked_is_looked_for(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)
    looking.withdraw_all()
    looking.coordinator.submit(a_job(a_task()))

    assert not looking.poll(machine)
    assert looking.holders() == [machine.key]


def test_two_nodes_of_a_size_speak_for_the_third_and_one_does_not(looking: Looking) -> None:
    first, second, third = (looking.coordinator.node(name=name) for name in ("one", "two", "three"))
    for machine in (first, second, third):
        looking.poll(machine, want=0)  # each is known not to be told anything

    known = [looking.poll(machine) for machine in (first, second, third)]

    assert known == [False, False, True]


def test_a_node_of_another_size_looks_for_itself(looking: Looking) -> None:
    small, other, large = (looking.coordinator.node(name=name, slots=n) for name, n in _SIZES)
    for machine in (small, other):
        looking.poll(machine)
    looking.poll(large, want=0)

    assert not looking.poll(large)


_SIZES = (("small", 1), ("other", 1), ("large", 2))


def test_a_node_with_gpus_always_looks(looking: Looking) -> None:
    machine = looking.coordinator.node(gpus=1)

    assert [looking.poll(machine) for _ in range(3)] == [False, False, False]


def test_a_node_with_another_session_is_not_quiet(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)
    before = machine.session
    looking.coordinator.open_session(machine)

    assert not looking.parked.is_quiet(machine.key, machine.session, reason="")
    looking.parked.forget_changed(Wakes(changed_nodes={machine.key}))
    assert not looking.parked.is_quiet(machine.key, before, reason="")


def test_a_node_that_is_to_stop_something_is_not_quiet(looking: Looking) -> None:
    machine = looking.coordinator.node()
    job = looking.coordinator.submit(a_job(a_task()))
    ref = looking.coordinator.claim_one(machine)
    looking.coordinator.report(machine, ref, Started())
    looking.poll(machine)
    assert looking.is_quiet(machine)

    looking.coordinator.stop(job)

    assert not looking.is_quiet(machine)
    assert not looking.poll(machine)


def test_a_node_that_has_told_nothing_of_an_assignment_is_asked_for_it_still(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.coordinator.submit(a_job(a_task()))
    ref = looking.coordinator.claim_one(machine)
    looking.poll(machine)
    assert not looking.is_quiet(machine)

    looking.coordinator.report(machine, ref, Started())
    looking.poll(machine)

    assert looking.is_quiet(machine)


def test_a_node_that_gets_work_is_not_quiet_until_the_next_look(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)
    looking.poll(machine)
    looking.coordinator.submit(a_job(a_task()))

    assert not looking.is_quiet(machine)


def test_a_node_that_gives_another_reason_for_taking_no_work_is_heard(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)

    assert not looking.is_quiet(machine, reason="its disk is full")


def test_what_was_seen_in_a_commit_that_failed_was_not_seen(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine, want=0)
    looking.seconds += timedelta(hours=1).total_seconds()
    looking.begin_poll(machine)
    looking.nudge(machine)
    looking.commit_failed()

    assert not looking.is_quiet(machine)
    assert not looking.poll(machine)


def test_whatever_was_seen_is_looked_at_again_now_and_then(looking: Looking) -> None:
    machine = looking.coordinator.node()
    looking.poll(machine)
    looking.seconds += 60

    assert looking.is_quiet(machine)
    assert [looking.poll(machine), looking.poll(machine)] == [False, True]

    looking.seconds += timedelta(minutes=6).total_seconds()
    assert not looking.is_quiet(machine)
