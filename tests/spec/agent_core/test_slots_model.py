"""The book of slots in any order of comings and goings: never over capacity, nothing left behind (I14)."""

from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.support.examples import examples
from windlass_agent.core.slots import HandOverLimits, SlotBook
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.resources import NodeCapacity, Resources

cores = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 1.0, 1.1, 2.0])
needs = st.builds(
    Resources,
    cpu=cores,
    memory_bytes=st.integers(0, 10),
    slots=st.integers(1, 3),
    gpus=st.sampled_from([0, 0, 0, 1, 2]),
)
MILLIONTH = 1e-6


class Slots(RuleBasedStateMachine):
    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.made = 0
        self.queues: dict[int, list[AttemptRef]] = {}
        self.needs: dict[AttemptRef, Resources] = {}
        self.exclusive: set[AttemptRef] = set()
        self.head_needs: dict[int, Resources] = {}
        """Of each busy slot what its first attempt reserved; kept until the slot is free."""

    @initialize(
        slots=st.integers(1, 4),
        cpu=cores,
        memory=st.integers(0, 20),
        most=st.integers(1, 4),
        gpus=st.integers(0, 4),
    )
    def begin(self, slots: int, cpu: float, memory: int, most: int, gpus: int) -> None:
        self.capacity = NodeCapacity(cpu=cpu, memory_bytes=memory, slots=slots, gpus=gpus)
        self.limits = HandOverLimits(most=most)
        self.book = SlotBook(self.capacity, self.limits, gpus=self.gpus)

    @property
    def gpus(self) -> list[str]:
        return [f"GPU-{number}" for number in range(self.capacity.gpus)]

    @rule(
        target=placed,
        wanted=needs,
        expected_s=st.none() | st.sampled_from([0.0, 0.001, 0.02, 1.0]),
        exclusive=st.booleans(),
    )
    def place(self, wanted: Resources, expected_s: float | None, exclusive: bool) -> object:
        ref = self._fresh()
        number = self.book.place(ref, wanted, expected_s=expected_s, exclusive=exclusive, now_s=self.now_s)
        is_idle = not self.queues
        if number is None:
            assert not (is_idle and self.capacity.could_ever_fit(wanted)), "an idle node takes what fits it"
            return multiple()
        queue = self.queues.setdefault(number, [])
        if queue:
            assert not exclusive
            assert expected_s is not None
            assert queue[0] not in self.exclusive
            assert len(queue) < self.limits.most
            held = self.head_needs[number]
            assert wanted.cpu <= held.cpu
            assert wanted.memory_bytes <= held.memory_bytes
            assert wanted.slots <= held.slots
            assert self.book.gpus_of(ref) == self.book.gpus_of(queue[0])
        else:
            self.head_needs[number] = wanted
        assert len(self.book.gpus_of(ref)) == wanted.gpus
        queue.append(ref)
        self.needs[ref] = wanted
        if exclusive:
            self.exclusive.add(ref)
        return ref

    @rule(ref=consumes(placed))
    def end(self, ref: AttemptRef) -> None:
        number = next(number for number, queue in self.queues.items() if ref in queue)
        self.book.ended(number, ref, now_s=self.now_s)
        self.queues[number].remove(ref)
        if not self.queues[number]:
            del self.queues[number], self.head_needs[number]
        # A second time, and one that was never here: nothing happens.
        self.book.ended(number, ref, now_s=self.now_s)
        self.book.ended(0, self._fresh(), now_s=self.now_s)
        assert self.book.gpus_of(ref) == ()

    @rule()
    def restart(self) -> None:
        """A new agent finds what runs, with the GPUs that were written down."""
        found = {ref: self.book.gpus_of(ref) for queue in self.queues.values() for ref in queue}
        self.book = SlotBook(self.capacity, self.limits, gpus=self.gpus)
        for number, queue in self.queues.items():
            for ref in queue:
                # Its needs count once it runs; what it runs behind holds the room until then.
                needs = self.head_needs[number] if ref == queue[0] else self.needs[ref]
                self.book.occupy(
                    number,
                    ref,
                    needs,
                    exclusive=ref in self.exclusive,
                    now_s=self.now_s,
                    gpus=found[ref],
                )
        assert found == {ref: self.book.gpus_of(ref) for ref in found}

    @rule(seconds=st.sampled_from([0.001, 0.02, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(patience_s=st.sampled_from([0.0, 0.5]))
    def look(self, patience_s: float) -> None:
        waiting = {(number, ref) for number, queue in self.queues.items() for ref in queue[1:]}
        assert set(self.book.stuck(now_s=self.now_s, patience_s=patience_s)) <= waiting
        assert 0 <= self.book.brisk(now_s=self.now_s, patience_s=patience_s) <= self.capacity.slots

    @invariant()
    def capacity_is_kept(self) -> None:
        if not self.made:
            return
        heads: Iterable[Resources] = self.head_needs.values()
        assert sum(one.cpu for one in heads) <= self.capacity.cpu + MILLIONTH
        assert sum(one.memory_bytes for one in heads) <= self.capacity.memory_bytes
        used = [name for queue in self.queues.values() for name in self.book.gpus_of(queue[0])]
        assert len(set(used)) == len(used)
        assert set(used) <= set(self.gpus)
        taken = sum(one.slots for one in heads)
        assert taken <= self.capacity.slots
        assert self.book.free == self.capacity.slots - taken
        assert self.book.queued == sum(len(queue) - 1 for queue in self.queues.values())

    def teardown(self) -> None:
        """When all has ended the whole node can be had again."""
        if not self.made:
            return
        for number, queue in self.queues.items():
            for ref in queue:
                self.book.ended(number, ref, now_s=self.now_s)
        all_of_it = Resources(
            cpu=self.capacity.cpu,
            memory_bytes=self.capacity.memory_bytes,
            slots=self.capacity.slots,
            gpus=self.capacity.gpus,
        )
        number = self.book.place(self._fresh(), all_of_it, expected_s=None, exclusive=True, now_s=self.now_s)
        assert number is not None
        assert self.book.free == 0

    def _fresh(self) -> AttemptRef:
        self.made += 1
        return AttemptRef(task_key=TaskKey(1), index=self.made, attempt=1, fence=Fence(1))


TestSlots = Slots.TestCase
TestSlots.settings = examples(40, steps=30)
