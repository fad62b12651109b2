"""Which slot runs which attempt, and how many may queue in a slot's keeper.

A keeper runs one command after another. Handing it a few plans ahead saves the round trip through the agent
after each exit, but a plan that sits behind a long command could have run elsewhere; so what queues in a
keeper is bounded by the time it is expected to take. Times are seconds of the boot clock, passed in.

GPUs are given by name, each to one attempt at a time; only what queues behind an attempt in its keeper, and
so starts when it has ended, has the same ones.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.resources import NodeCapacity, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverLimits:
    ahead: timedelta = timedelta(milliseconds=30)
    """Plans queued in one keeper take about this long: more than a wake-up of the agent, not yet felt."""
    most: int = 64
    """Plans in one keeper at most, whatever they take."""


@dataclass(slots=True)
class _SlotUse:
    queue: deque[AttemptRef] = field(default_factory=deque)
    """The head runs; the others wait in the keeper."""
    reserved: Resources | None = None
    """What the head took of the node; those behind it must fit into it."""
    helpers: tuple[int, ...] = ()
    """Further slots that the head takes up."""
    is_helper: bool = False
    is_withheld: bool = False
    """It cannot be used; nothing starts in it or queues in its keeper."""
    exclusive: bool = False
    expected_s: float = 0.0
    """Sum over the queue."""
    is_full: bool = False
    """Nothing queues any more until half has run: plans then go to the keeper in one portion."""
    head_since_s: float = 0.0


class SlotBook:
    """What every slot of the node has to do."""

    def __init__(self, capacity: NodeCapacity, limits: HandOverLimits, *, gpus: Sequence[str] = ()) -> None:
        self._capacity = capacity
        self._gpus = tuple(gpus)
        self._gpus_of: dict[AttemptRef, tuple[str, ...]] = {}
        self._gpu_users: Counter[str] = Counter()
        self._most = limits.most
        self._ahead_s = limits.ahead.total_seconds()
        self._slots = [_SlotUse() for _ in range(capacity.slots)]
        self._expected: dict[AttemptRef, float] = {}
        self._millicores_used = 0
        self._memory_used = 0
        self.free = capacity.slots
        """Slots with nothing to do."""
        self.queued = 0
        """Attempts that wait in keepers behind a running one."""
        self.withheld = 0
        """Slots that cannot be used."""

    def place(
        self, ref: AttemptRef, needs: Resources, *, expected_s: float | None, exclusive: bool, now_s: float
    ) -> int | None:
        """The slot that takes the attempt now, or None when it has to wait.

        `exclusive`: nothing may queue behind it, and it queues behind nothing. `expected_s` is None when
        nothing is known of its run time; such an attempt only goes to a free slot.
        """
        if self.free >= needs.slots and self._fits(needs):
            return self._take_free(ref, needs, expected_s=expected_s, exclusive=exclusive, now_s=now_s)
        if exclusive or expected_s is None:
            return None
        number = self._shortest_queue(needs, now_s)
        if number is None:
            return None
        use = self._slots[number]
        if use.expected_s + expected_s > self._ahead_s or len(use.queue) >= self._most:
            use.is_full = True
            return None
        self._give_gpus(ref, self.gpus_of(use.queue[0]))
        use.queue.append(ref)
        self.queued += 1
        use.expected_s += expected_s
        self._expected[ref] = expected_s
        return number

    def gpus_of(self, ref: AttemptRef) -> tuple[str, ...]:
        """Those that the attempt has been given."""
        return self._gpus_of.get(ref, ())

    def occupy(
        self,
        number: int,
        ref: AttemptRef,
        needs: Resources,
        *,
        exclusive: bool,
        now_s: float,
        gpus: tuple[str, ...] = (),
    ) -> None:
        """An attempt that was found in this slot when the agent started; in the order of the keeper's queue.

        A slot beyond those of now (there were more before) runs to its end what it has. `gpus` are those that
        it was started with; when they are not known it may be any of them.
        """
        self._give_gpus(ref, gpus or (self._gpus if needs.gpus else ()))
        if number >= len(self._slots):
            return
        use = self._slots[number]
        self._expected[ref] = 0.0
        if use.queue:
            use.queue.append(ref)
            self.queued += 1
            return
        helpers = [other for other, one in enumerate(self._slots) if other != number and _is_free(one)]
        self._start(number, ref, needs, helpers=tuple(helpers[: needs.slots - 1]), now_s=now_s)
        use.exclusive = exclusive

    def ended(self, number: int, ref: AttemptRef, *, now_s: float) -> None:
        """The attempt has left the slot, from whichever place in its queue."""
        self._gpu_users.subtract(self._gpus_of.pop(ref, ()))
        if ref not in self._expected:
            return
        use = self._slots[number]
        was_head = use.queue[0] == ref
        use.queue.remove(ref)
        use.expected_s -= self._expected.pop(ref)
        if use.expected_s * 2 <= self._ahead_s and len(use.queue) * 2 <= self._most:
            use.is_full = False
        if use.queue:
            self.queued -= 1
            use.head_since_s = now_s if was_head else use.head_since_s
            return
        self._clear(number)

    def withhold(self, number: int, is_unusable: bool) -> None:
        """May be said again. A slot beyond those of now is not counted."""
        if number >= len(self._slots) or self._slots[number].is_withheld == is_unusable:
            return
        use = self._slots[number]
        was_free = _is_free(use)
        use.is_withheld = is_unusable
        self.withheld += 1 if is_unusable else -1
        self.free += _is_free(use) - was_free

    def stuck(self, *, now_s: float, patience_s: float) -> list[tuple[int, AttemptRef]]:
        """Attempts that wait in a keeper whose command runs longer than `patience_s`."""
        return [
            (number, ref)
            for number, use in enumerate(self._slots)
            if len(use.queue) > 1 and now_s - use.head_since_s > patience_s
            for ref in list(use.queue)[1:]
        ]

    def brisk(self, *, now_s: float, patience_s: float) -> int:
        """Slots that are free or whose command has not run long: prefetched work may count on them."""
        return sum(
            _is_free(use)
            or (bool(use.queue) and not use.exclusive and now_s - use.head_since_s <= patience_s)
            for use in self._slots
        )

    def _fits(self, needs: Resources) -> bool:
        return (
            self._millicores_used + _millicores(needs.cpu) <= _millicores(self._capacity.cpu)
            and self._memory_used + needs.memory_bytes <= self._capacity.memory_bytes
            and needs.gpus <= (len(self._free_gpus()) if needs.gpus else 0)
        )

    def _free_gpus(self) -> list[str]:
        return [name for name in self._gpus if not self._gpu_users[name]]

    def _give_gpus(self, ref: AttemptRef, names: Sequence[str]) -> None:
        if names:
            self._gpus_of[ref] = tuple(names)
            self._gpu_users.update(names)

    def _take_free(
        self, ref: AttemptRef, needs: Resources, *, expected_s: float | None, exclusive: bool, now_s: float
    ) -> int:
        taken = [number for number, use in enumerate(self._slots) if _is_free(use)][: max(needs.slots, 1)]
        number, *helpers = taken
        if needs.gpus:
            self._give_gpus(ref, self._free_gpus()[: needs.gpus])
        self._expected[ref] = expected_s or 0.0
        self._start(number, ref, needs, helpers=tuple(helpers), now_s=now_s)
        self._slots[number].exclusive = exclusive
        return number

    def _start(
        self, number: int, ref: AttemptRef, needs: Resources, *, helpers: tuple[int, ...], now_s: float
    ) -> None:
        use = self._slots[number]
        use.queue.append(ref)
        use.reserved = needs
        use.helpers = helpers
        use.expected_s = self._expected[ref]
        use.head_since_s = now_s
        for helper in helpers:
            self._slots[helper].is_helper = True
        self.free -= 1 + len(helpers)
        self._millicores_used += _millicores(needs.cpu)
        self._memory_used += needs.memory_bytes

    def _clear(self, number: int) -> None:
        use = self._slots[number]
        for helper in use.helpers:
            self._slots[helper].is_helper = False
        self.free += sum(_is_free(self._slots[one]) for one in (number, *use.helpers))
        if use.reserved is not None:
            self._millicores_used -= _millicores(use.reserved.cpu)
            self._memory_used -= use.reserved.memory_bytes
        use.reserved, use.helpers, use.exclusive = None, (), False
        use.expected_s, use.is_full = 0.0, False

    def _shortest_queue(self, needs: Resources, now_s: float) -> int | None:
        candidates = [
            (use.expected_s, number)
            for number, use in enumerate(self._slots)
            if use.queue
            and not use.exclusive
            and not use.is_withheld
            and not use.is_full
            and now_s - use.head_since_s <= self._ahead_s
            and use.reserved is not None
            and _fits_into(needs, use.reserved)
        ]
        return min(candidates)[1] if candidates else None


def _is_free(use: _SlotUse) -> bool:
    return not use.queue and not use.is_helper and not use.is_withheld


def _fits_into(needs: Resources, reserved: Resources) -> bool:
    return (
        needs.slots <= reserved.slots
        and needs.cpu <= reserved.cpu
        and needs.memory_bytes <= reserved.memory_bytes
        # Not less: a chain of attempts that need none would keep a GPU from others for ever.
        and needs.gpus == reserved.gpus
    )


def _millicores(cores: float) -> int:
    """Whole numbers: tenths of cores that come and go would leave a rest that no whole core fits beside."""
    return round(cores * 1000)
