"""In which order polls that want work are asked, and how many of them."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from windlass_coordinator.core.records import ClusterKey
from windlass_coordinator.engine.hungry_polls import HungryPolls, size_of
from windlass_coordinator.engine.parking import ParkedPoll
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.resources import NodeCapacity

SMALL = NodeCapacity(cpu=1, memory_bytes=1 << 30, slots=1, gpus=0)
LARGE = NodeCapacity(cpu=8, memory_bytes=1 << 33, slots=8, gpus=0)
WITH_GPUS = NodeCapacity(cpu=8, memory_bytes=1 << 33, slots=8, gpus=4)


class Looking(HungryPolls):
    """Counts the polls that were taken out of it to be asked."""

    taken = 0

    def waiting(self, *arguments: object, **more: object) -> list[ParkedPoll]:
        polls = super().waiting(*arguments, **more)  # type: ignore[arg-type]  # as they came
        self.taken += len(polls)
        return polls


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Polls:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.hungry = Looking(threading.Lock())
        self._loop = loop
        self._nodes = 0

    def park(self, *capacities: NodeCapacity, is_empty: bool = True) -> list[ParkedPoll]:
        polls = [self._poll(capacity, is_empty=is_empty) for capacity in capacities]
        for poll in polls:
            self.hungry.add(poll)
        return polls

    def _poll(self, capacity: NodeCapacity, *, is_empty: bool) -> ParkedPoll:
        self._nodes += 1
        return ParkedPoll(
            node_key=NodeKey(self._nodes),
            cluster_key=ClusterKey(1),
            capacity=capacity,
            epoch=1,
            nonce="nonce",
            poll_seq=1,
            want=1,
            is_empty=is_empty,
            reply=self._loop.create_future(),
        )


@pytest.fixture
def polls(loop: asyncio.AbstractEventLoop) -> Polls:
    return Polls(loop)


def test_who_has_waited_longest_is_asked_first_whatever_its_size(polls: Polls) -> None:
    parked = polls.park(SMALL, LARGE, LARGE, SMALL, WITH_GPUS, *[SMALL] * 20, LARGE)

    assert list(polls.hungry.turns()) == parked


def test_a_size_that_is_left_out_is_asked_no_more_and_not_looked_at(polls: Polls) -> None:
    parked = polls.park(*[SMALL] * 1000, LARGE, LARGE)
    turns = polls.hungry.turns()
    asked = []
    for poll in turns:
        asked.append(poll)
        if len(asked) == 2:
            turns.leave_out(size_of(poll))

    assert asked == [parked[0], parked[1], *parked[-2:]]
    assert polls.hungry.taken < 10


def test_who_goes_meanwhile_is_not_asked_and_who_comes_meanwhile_has_its_turn_another_time(
    polls: Polls,
) -> None:
    parked = polls.park(*[SMALL] * 10)
    asked = []
    for poll in polls.hungry.turns():
        asked.append(poll)
        polls.hungry.remove(poll)
        if len(asked) == 4:
            for gone in parked[4:8]:
                polls.hungry.remove(gone)
            polls.park(SMALL)

    assert asked == parked[:4] + parked[8:]
    assert len(list(polls.hungry.turns())) == 1


def test_who_parks_again_has_waited_for_less_long(polls: Polls) -> None:
    first, second = polls.park(SMALL, SMALL)
    polls.hungry.remove(first)
    polls.hungry.add(first)

    assert list(polls.hungry.turns()) == [second, first]


def test_machines_with_gpus_in_use_are_not_of_the_size_of_free_ones(polls: Polls) -> None:
    (free,) = polls.park(WITH_GPUS)
    (busy,) = polls.park(WITH_GPUS, is_empty=False)
    turns = polls.hungry.turns()
    asked = []
    for poll in turns:
        asked.append(poll)
        turns.leave_out(size_of(free))

    assert asked == [free, busy]
    assert size_of(polls.park(SMALL, is_empty=False)[0]) == size_of(polls.park(SMALL)[0])
