"""Polls that wait: who is served by the commit that readies work."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, needing, refs_of
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.records import ClusterKey, Wakes
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

    def poll(self, machine: Machine, *, seq: int | None = None, again: bool = False) -> ParkedPoll:
        """Its next one, unless `seq` says which."""
        poll = self._poll_of(machine, seq or machine.poll_seq + 1)
        poll.may_repeat = again
        self.parked.park(poll)
        return poll

    def takes_its_place(self, machine: Machine) -> None:
        """While a commit looks for work for its poll, one of its last session arrives that was long on its
        way."""
        late = self._poll_of(replace(machine, epoch=machine.epoch - 1, nonce="older"), seq=7)

        def park() -> None:
            self.while_served = lambda: None
            self.parked.park(late)

        self.while_served = park

    def _poll_of(self, machine: Machine, seq: int) -> ParkedPoll:
        def cluster_and_capacity(tx: Transaction) -> tuple[ClusterKey, NodeCapacity]:
            node = tx.node_view(machine.key)
            assert node is not None
            return node.cluster_key, node.capacity

        cluster_key, capacity = self.coordinator.run(cluster_and_capacity)
        return ParkedPoll(
            node_key=machine.key,
            cluster_key=cluster_key,
            capacity=capacity,
            epoch=machine.epoch,
            nonce=machine.nonce,
            poll_seq=seq,
            want=1,
            reply=self._loop.create_future(),
        )

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


def test_a_poll_whose_place_another_takes_while_a_commit_looks_for_work_for_it_gets_its_work(
    waiting: Waiting,
) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine)
    waiting.takes_its_place(machine)

    waiting.coordinator.submit(a_job(a_task()))

    assert [len(claimed.index) for claimed in waiting.answer(poll).claimed] == [1]


def test_a_poll_whose_place_another_takes_while_a_commit_finds_nothing_for_it_is_answered_after_it(
    waiting: Waiting,
) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine)
    waiting.takes_its_place(machine)

    waiting.coordinator.run(lambda tx: tx.wakes.nodes.add(machine.key))

    assert not poll.reply.done()
    assert waiting.answer(poll) == PollAnswer()


def test_a_poll_that_was_overtaken_on_its_way_takes_nobodys_place(waiting: Waiting) -> None:
    machine = waiting.coordinator.node()
    poll = waiting.poll(machine, seq=2)

    overtaken = waiting.poll(machine, seq=1)

    assert overtaken.reply.result() == PollAnswer()
    assert not poll.reply.done()
    waiting.coordinator.submit(a_job(a_task()))
    assert len(waiting.answer(poll).claimed) == 1


def test_a_repeated_poll_gets_what_an_earlier_call_leased_in_a_commit_that_ended_after_it_was_parked(
    waiting: Waiting,
) -> None:
    coordinator = waiting.coordinator
    machine = coordinator.node()
    coordinator.submit(a_job(a_task(instances=2)))
    repeated = waiting.poll(machine, again=True)
    leased = coordinator.claim_one(machine)  # with this number, as nothing else has been polled

    coordinator.run(lambda tx: tx.wakes.nodes.add(machine.key))

    assert refs_of(waiting.answer(repeated).claimed) == [leased]
    assert waiting.holders() == [machine.key]


def test_a_poll_whose_commit_failed_without_a_word_gets_what_was_leased_in_it(waiting: Waiting) -> None:
    coordinator = waiting.coordinator
    machine = coordinator.node()
    poll = waiting.poll(machine)

    def serve(tx: Transaction) -> Sequence[Delivery]:
        return waiting.parked.follow(tx, Wakes(everything=True))

    coordinator.store.listen(follow=lambda tx, wakes: [], after_commit=lambda _: None)
    coordinator.submit(a_job(a_task(instances=2)))
    for delivery in coordinator.run(serve):
        delivery.take_back()  # made, and nobody could be asked whether it was
    (again,) = coordinator.run(serve)
    again()

    assert [claimed.index for claimed in poll.reply.result().claimed] == [(0,)]
    assert waiting.holders() == [machine.key]
