"""Polls that wait: who is served by the commit that readies work."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, needing
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.records import Wakes
from windlass_coordinator.engine.parking import ParkedPoll, ParkedPolls, PollAnswer
from windlass_coordinator.stores.base import Delivery, Transaction
from windlass_proto.errors import Unavailable
from windlass_proto.model.events import Started
from windlass_proto.model.resources import NodeCapacity


class Waiting:
    """Machines of the default cluster whose polls are parked."""

    def __init__(self, coordinator: InMemoryCoordinator) -> None:
        self.coordinator = coordinator
        self.while_served: Callable[[], object] = lambda: None
        """What another thread does while a commit looks for work for a poll."""
        self.parked = ParkedPolls(clock=self._now)
        coordinator.store.listen(follow=self._follow, after_commit=lambda _: None)
        self._served: list[Delivery] = []
        self._loop = asyncio.new_event_loop()

    def _follow(self, tx: Transaction, wakes: Wakes) -> Sequence[Delivery]:
        served = self.parked.follow(tx, wakes)
        self._served += served
        return served

    def answer(self, poll: ParkedPoll) -> PollAnswer:
        """What it was told after the commits."""
        for delivery in self._served:
            delivery()
        return poll.reply.result()

    def _now(self) -> datetime:
        self.while_served()
        return self.coordinator.now

    def poll(self, machine: Machine) -> ParkedPoll:
        def cluster_and_capacity(tx: Transaction) -> tuple[int, NodeCapacity]:
            node = tx.node_view(machine.key)
            assert node is not None
            return node.cluster_key, node.capacity

        cluster_key, capacity = self.coordinator.run(cluster_and_capacity)
        poll = ParkedPoll(
            node_key=machine.key,
            cluster_key=cluster_key,
            capacity=capacity,
            epoch=machine.epoch,
            nonce=machine.nonce,
            poll_seq=machine.poll_seq + 1,
            want=1,
            reply=self._loop.create_future(),
        )
        self.parked.park(poll)
        return poll

    def holders(self) -> list[object]:
        """The machines that have a live attempt."""
        found = self.coordinator.rows("SELECT node_key FROM attempts WHERE ended_at IS NULL")
        return [key for (key,) in found]

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def waiting(coordinator: InMemoryCoordinator) -> Iterator[Waiting]:
    found = Waiting(coordinator)
    yield found
    found.close()


def test_a_machine_that_is_avoided_does_not_speak_for_others_of_its_size(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    first = coordinator.node(name="first")
    coordinator.submit(a_job(a_task()))
    coordinator.report(first, coordinator.claim_one(first), Started())
    second = coordinator.node(name="second")
    coordinator.open_session(first, boot_id="boot-2")  # it was restarted: what it had is lost
    waiting.poll(first)
    waiting.poll(second)

    coordinator.later(timedelta(seconds=10))
    coordinator.ready_due()

    assert waiting.holders() == [second.key]


def test_a_silent_machine_does_not_speak_for_others_of_its_size(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    silent, other = coordinator.node(name="silent"), coordinator.node(name="other")
    waiting.poll(silent)
    waiting.poll(other)
    coordinator.mark_silent(silent)

    coordinator.submit(a_job(a_task()))

    assert waiting.holders() == [other.key]


def test_machines_whose_gpus_are_taken_do_not_speak_for_others_of_their_size(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    machines = [coordinator.node(name=name, slots=2, gpus=1) for name in ("first", "second", "third")]
    coordinator.submit(a_job(needing(a_task(instances=2), gpus=1)))
    for machine in machines[:2]:
        coordinator.claim_one(machine)
    for machine in machines:
        waiting.poll(machine)

    coordinator.submit(a_job(needing(a_task(), gpus=1)))

    assert waiting.holders() == [machine.key for machine in machines]


def test_a_poll_that_was_parked_while_the_gpus_were_taken_gets_what_waits_for_them(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    machine = coordinator.node(slots=2, gpus=1)
    coordinator.submit(a_job(needing(a_task(instances=3), gpus=1)))
    first = coordinator.claim_one(machine)
    waiting.poll(machine)
    assert len(waiting.parked) == 1

    coordinator.report(machine, first, exits())

    assert (len(waiting.parked), waiting.holders()) == (0, [machine.key])
    machine.poll_seq += 1
    machine.held = [replace(first, index=1)]
    waiting.poll(machine)
    coordinator.release(machine, *machine.held)
    assert (len(waiting.parked), waiting.holders()) == (0, [machine.key])


def test_a_poll_that_was_served_in_a_commit_that_failed_waits_on(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    machine = coordinator.node()
    coordinator.store.listen(follow=lambda tx, wakes: [], after_commit=lambda _: None)
    coordinator.submit(a_job(a_task()))
    waiting.poll(machine)

    def serves_and_fails(tx: Transaction) -> None:
        (delivery,) = waiting.parked.follow(tx, Wakes(everything=True))
        assert len(waiting.parked) == 0
        delivery.take_back()
        raise Unavailable("the database has gone")

    with pytest.raises(Unavailable):
        coordinator.store.run_now(serves_and_fails)

    assert (len(waiting.parked), waiting.holders()) == (1, [])
    coordinator.run(lambda tx: waiting.parked.follow(tx, Wakes(everything=True)))
    assert (len(waiting.parked), waiting.holders()) == (0, [machine.key])


def test_work_that_is_leased_to_a_poll_while_its_time_runs_out_reaches_it(waiting: Waiting) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine)
    withdrawn = []
    waiting.while_served = lambda: withdrawn.append(waiting.parked.withdraw(poll))

    waiting.coordinator.submit(a_job(a_task()))

    assert withdrawn == [False]  # who waits for it waits on
    assert [len(claimed.index) for claimed in waiting.answer(poll).claimed] == [1]
    assert (len(waiting.parked), waiting.holders()) == (0, [machine.key])


def test_a_poll_whose_time_runs_out_while_a_commit_finds_nothing_for_it_is_answered_empty(
    waiting: Waiting,
) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine)
    withdrawn = []
    waiting.while_served = lambda: withdrawn.append(waiting.parked.withdraw(poll))

    waiting.coordinator.run(lambda tx: tx.wakes.nodes.add(machine.key))

    assert withdrawn == [False]
    assert waiting.answer(poll) == PollAnswer()
    assert len(waiting.parked) == 0


def test_a_poll_that_is_served_while_the_coordinator_goes_down_gets_its_work_and_the_others_are_sent_away(
    waiting: Waiting,
) -> None:
    first, second = (waiting.poll(waiting.coordinator.node(name=name)) for name in ("first", "second"))
    sent_away: list[ParkedPoll] = []
    waiting.while_served = lambda: sent_away.extend(waiting.parked.drain())

    waiting.coordinator.submit(a_job(a_task()))

    assert sent_away == [second]
    assert len(waiting.answer(first).claimed) == 1


def test_a_poll_for_which_nothing_is_found_while_the_coordinator_goes_down_is_sent_away(
    waiting: Waiting,
) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine)
    waiting.while_served = waiting.parked.drain

    waiting.coordinator.run(lambda tx: tx.wakes.nodes.add(machine.key))

    assert waiting.answer(poll) == PollAnswer(go_away=True)
    assert len(waiting.parked) == 0
