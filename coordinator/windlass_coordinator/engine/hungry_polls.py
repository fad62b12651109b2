"""Polls that want work, sorted by the size of their machines: who has waited longest is asked first.

What two machines of one size do not find, no other of that size finds. So of ten thousand idle machines a
commit that readies one instance looks at three, and not at each of them.
"""

import heapq
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count, islice
from typing import TYPE_CHECKING

from windlass_proto.model.ids import NodeKey
from windlass_proto.model.resources import NodeCapacity

if TYPE_CHECKING:
    from windlass_coordinator.engine.parking import ParkedPoll

Size = tuple[NodeCapacity, bool]
"""Of a machine, and whether all its GPUs are free. Those with GPUs in use stand together here, and find
different work all the same."""

_FIRST_LOOK = 4
"""Polls of one size that are taken at once; each time twice as many as before."""


def size_of(poll: "ParkedPoll") -> Size:
    return poll.capacity, poll.is_empty or not poll.capacity.gpus


class HungryPolls:
    """Of one cluster. Whoever adds or removes one holds the lock."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._places = count(1)
        self._last_place = 0
        # In each the order is that of arrival.
        self._sizes: dict[Size, dict[NodeKey, ParkedPoll]] = {}

    def add(self, poll: "ParkedPoll") -> None:
        poll.place = self._last_place = next(self._places)
        self._sizes.setdefault(size_of(poll), {})[poll.node_key] = poll

    def remove(self, poll: "ParkedPoll") -> None:
        size = size_of(poll)
        polls = self._sizes[size]
        del polls[poll.node_key]
        if not polls:
            del self._sizes[size]

    def turns(self) -> "Turns":
        """Of those that wait now; they may come and go meanwhile."""
        with self._lock:
            return Turns(self, tuple(self._sizes), last_place=self._last_place)

    def waiting(self, size: Size, *, after_place: int, to_place: int, most: int) -> "list[ParkedPoll]":
        """The next ones of a size, in the order of arrival."""
        with self._lock:
            polls = self._sizes.get(size, {}).values()
            later = (poll for poll in polls if after_place < poll.place <= to_place)
            return list(islice(later, most))


class Turns:
    """One poll after the other, in the order of arrival."""

    def __init__(self, hungry: HungryPolls, sizes: tuple[Size, ...], *, last_place: int) -> None:
        self._queues = {size: _queue(hungry, size, last_place) for size in sizes}
        self._spent: set[Size] = set()

    def __iter__(self) -> "Iterator[ParkedPoll]":
        heap = [(poll.place, poll) for queue in self._queues.values() if (poll := next(queue, None))]
        heapq.heapify(heap)
        while heap:
            _, poll = heapq.heappop(heap)
            size = size_of(poll)
            if size in self._spent:
                continue
            yield poll
            following = next(self._queues[size], None) if size not in self._spent else None
            if following is not None:
                heapq.heappush(heap, (following.place, following))

    def leave_out(self, size: Size) -> None:
        """From now on."""
        self._spent.add(size)


def _queue(hungry: HungryPolls, size: Size, last_place: int) -> "Iterator[ParkedPoll]":
    """Taken in portions that grow: mostly the first few are enough."""
    place, most = 0, _FIRST_LOOK
    while polls := hungry.waiting(size, after_place=place, to_place=last_place, most=most):
        yield from polls
        place, most = polls[-1].place, 2 * most
