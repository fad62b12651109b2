"""What an agent still has to tell, when replies get lost: no result is, and their order is kept."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.examples import examples
from windlass_agent.core.attempt_phases import RESULT_SEQ, PendingEvents, is_last, seq_of
from windlass_proto.model.events import (
    AttemptEvent,
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
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

ENDS: list[list[Happening]] = [
    [Exited(code=0, signal=None)],
    [Exited(code=0, signal=None, finalizing=True), Finalized()],
    [Exited(code=0, signal=None, finalizing=True), FinalizeFailed(reason="")],
    [PrepareFailed(kind=FailureKind.USER_CONFIG, reason="")],
    [StoppedEarly()],
    [LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="")],
]


class Telling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pending = PendingEvents()
        self.still_to_happen: list[tuple[AttemptRef, list[Happening]]] = []
        self.results: dict[AttemptRef, list[Happening]] = {}
        """That happened and were not answered, oldest first."""
        self.heard: dict[AttemptRef, list[AttemptEvent]] = {}
        """What the other side has processed, in its order."""
        self.under_way: list[AttemptEvent] | None = None
        self.made = 0

    @rule(end=st.sampled_from(ENDS), begun=st.integers(0, 2))
    def attempt(self, end: list[Happening], begun: int) -> None:
        self.made += 1
        ref = AttemptRef(task_key=TaskKey(1), index=self.made, attempt=1, fence=Fence(1))
        self.still_to_happen.append((ref, [*[Preparing(), Started()][:begun], *end]))

    @precondition(lambda self: self.still_to_happen)
    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        ref, left = data.draw(st.sampled_from(self.still_to_happen))
        what = left.pop(0)
        assert is_last(what) == (not left)
        if not left:
            self.still_to_happen.remove((ref, left))
        if seq_of(what) >= RESULT_SEQ:
            self.results.setdefault(ref, []).append(what)
        self.pending.add(ref, what)

    @precondition(lambda self: self.under_way is None and len(self.pending))
    @rule(limit=st.integers(1, 4))
    def send(self, limit: int) -> None:
        before = len(self.pending)
        self.under_way = self.pending.take(limit)
        assert len({event.ref for event in self.under_way}) == min(limit, before)
        assert len(self.pending) == before - min(limit, before)

    @precondition(lambda self: self.under_way is not None)
    @rule(arrives=st.booleans(), answered=st.booleans())
    def reply(self, arrives: bool, answered: bool) -> None:
        """The report may be lost, or only its answer."""
        assert self.under_way is not None
        events, self.under_way = self.under_way, None
        if arrives or answered:
            for event in events:
                self.heard.setdefault(event.ref, []).append(event)
        if not answered:
            self.pending.put_back(events)
            return
        for event in events:
            if event.seq >= RESULT_SEQ:
                self.results[event.ref].remove(event.what)

    @precondition(lambda self: self.results)
    @rule(data=st.data())
    def fenced(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.results)))
        if self.under_way is None:
            self.pending.drop(ref)
            self.results.pop(ref)
            self.still_to_happen = [(other, left) for other, left in self.still_to_happen if other != ref]

    @invariant()
    def a_result_that_waits_is_known_to_wait(self) -> None:
        sent = [event for event in self.under_way or () if event.seq >= RESULT_SEQ]
        assert self.pending.has_result == (sum(map(len, self.results.values())) > len(sent))

    @invariant()
    def events_of_an_attempt_are_first_heard_in_their_order(self) -> None:
        for events in self.heard.values():
            newest = 0
            for position, event in enumerate(events):
                # A repetition, or the next: never something that was passed over.
                assert event.seq > newest or event in events[:position]
                newest = max(newest, event.seq)

    def teardown(self) -> None:
        """When the network heals everything that is owed arrives, each attempt's results in order."""
        self.pending.put_back(self.under_way or ())
        told: dict[AttemptRef, list[Happening]] = {}
        while events := self.pending.take(3):
            for event in events:
                if event.seq >= RESULT_SEQ:
                    told.setdefault(event.ref, []).append(event.what)
        assert told == {ref: owed for ref, owed in self.results.items() if owed}


TestTelling = Telling.TestCase
TestTelling.settings = examples(50, steps=40)
