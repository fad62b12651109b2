"""Everything that an agent may find at its start, in every combination."""

from collections.abc import Mapping
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.generated import values
from windlass_agent.core.readoption import (
    EndedBefore,
    InKeeper,
    LostBefore,
    NotStarted,
    SlotFinding,
    decide_readoption,
)
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

ATTEMPTS = 5


def a_ref(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(1), index=index, attempt=1, fence=Fence(1))


refs = st.integers(0, ATTEMPTS - 1).map(a_ref)
some = st.sets(refs)
records = st.builds(
    ExitRecord,
    **{
        name: values(kind)
        for name, kind in (
            ("ran_for_us", int),
            ("user_cpu_us", int),
            ("system_cpu_us", int),
            ("peak_memory_bytes", int),
            ("stdout_end", int),
            ("stderr_end", int),
            ("leftover_processes", int),
            ("started", bool),
            ("stopped", bool),
        )
    },
    ref=refs,
    code=st.just(0),
    signal=st.none(),
    kind=st.none(),
    reason=st.just(""),
)


@st.composite
def slots(draw: st.DrawFn) -> dict[int, SlotFinding]:
    """An attempt is in one slot at most, but may stand there in several ways."""
    left = set(map(a_ref, range(ATTEMPTS)))
    found: dict[int, SlotFinding] = {}
    for number in range(draw(st.integers(0, 3))):
        here = draw(st.sets(st.sampled_from(sorted(left)))) if left else set()
        left -= here
        if not here:
            continue
        mine = st.sampled_from(sorted(here))
        found[number] = SlotFinding(
            running=draw(st.none() | mine),
            queued=tuple(draw(st.lists(mine, unique=True, max_size=3))),
            ended=tuple(draw(st.lists(records.filter(lambda r: r.ref in here), max_size=2))),  # noqa: B023  (drawn at once)
            lost=tuple(draw(st.lists(mine, unique=True, max_size=3))),
        )
    return found


@examples(100)
@given(st.lists(refs, unique=True), slots(), some, some)
def test_every_intent_gets_one_finding_and_the_strongest_proof_decides(
    intents: list[AttemptRef],
    found: Mapping[int, SlotFinding],
    before_boot: set[AttemptRef],
    ended_by_agent: set[AttemptRef],
) -> None:
    decision = decide_readoption(intents, found, before_boot=before_boot, ended_by_agent=ended_by_agent)
    assert set(decision.attempts) == set(intents)
    for ref, finding in decision.attempts.items():
        exits = [record for slot in found.values() for record in slot.ended if record.ref == ref]
        in_keeper = any(ref in (slot.running, *slot.queued) for slot in found.values())
        handed_over = any(ref in slot.lost for slot in found.values())
        match finding:
            case EndedBefore(record=record):
                assert record in exits
            case LostBefore(what=what):
                assert not what.kind.spends_user_budget
                shut_down = bool(exits) and ref in ended_by_agent and exits[-1].stopped and exits[-1].started
                no_proof = not exits and not in_keeper and (handed_over or ref in before_boot)
                assert shut_down or no_proof
            case InKeeper():
                assert in_keeper
                assert not exits
            case NotStarted():
                # Only what certainly never ran may be started (I15).
                assert not exits
                assert not in_keeper
                assert not handed_over
                assert ref not in before_boot


@examples(60)
@given(st.lists(refs, unique=True), slots(), some, some)
def test_what_is_in_a_slot_without_an_intent_is_a_stranger_once(
    intents: list[AttemptRef],
    found: Mapping[int, SlotFinding],
    before_boot: set[AttemptRef],
    ended_by_agent: set[AttemptRef],
) -> None:
    decision = decide_readoption(intents, found, before_boot=before_boot, ended_by_agent=ended_by_agent)
    present = {
        ref
        for slot in found.values()
        for ref in (*slot.lost, *slot.queued, *(record.ref for record in slot.ended), slot.running)
        if ref is not None
    }
    assert {ref for _, ref in decision.strangers} == present - set(intents)
    assert len(decision.strangers) == len({ref for _, ref in decision.strangers})
    for number, ref in decision.strangers:
        slot = found[number]
        assert ref in (*slot.lost, *slot.queued, *(record.ref for record in slot.ended), slot.running)


@examples(30)
@given(st.lists(refs, unique=True), slots(), some, some)
def test_deciding_again_about_what_is_left_changes_nothing(
    intents: list[AttemptRef],
    found: Mapping[int, SlotFinding],
    before_boot: set[AttemptRef],
    ended_by_agent: set[AttemptRef],
) -> None:
    """The agent may be killed while it does as decided: what it did not get to is decided the same way."""
    first = decide_readoption(intents, found, before_boot=before_boot, ended_by_agent=ended_by_agent)
    again = decide_readoption(intents, found, before_boot=before_boot, ended_by_agent=ended_by_agent)
    assert again == first
    for forgotten in intents:
        left = [ref for ref in intents if ref != forgotten]
        without = {
            number: SlotFinding(
                running=None if slot.running == forgotten else slot.running,
                queued=tuple(ref for ref in slot.queued if ref != forgotten),
                ended=tuple(record for record in slot.ended if record.ref != forgotten),
                lost=tuple(ref for ref in slot.lost if ref != forgotten),
            )
            for number, slot in found.items()
        }
        rest = decide_readoption(left, without, before_boot=before_boot, ended_by_agent=ended_by_agent)
        assert rest.attempts == {ref: what for ref, what in first.attempts.items() if ref != forgotten}
        assert rest.strangers == first.strangers


def test_one_attempt_in_all_the_ways_it_may_stand_in_a_slot() -> None:
    """Exhaustive for one: an exit record wins, then a living keeper, then what a dead one was handed."""
    ref = a_ref(0)
    record = ExitRecord(
        ref=ref, code=0, signal=None, kind=None, reason="", ran_for_us=1, user_cpu_us=0, system_cpu_us=0,
        peak_memory_bytes=0, stdout_end=0, stderr_end=0, started=True, stopped=True, leftover_processes=0,
    )  # fmt: skip
    for runs, waits, ended, lost, old, by_agent in product((False, True), repeat=6):
        slot = SlotFinding(
            running=ref if runs else None,
            queued=(ref,) if waits else (),
            ended=(record,) if ended else (),
            lost=(ref,) if lost else (),
        )
        decision = decide_readoption(
            [ref], {4: slot}, before_boot={ref} if old else set(), ended_by_agent={ref} if by_agent else set()
        )
        expected = (
            (LostBefore if by_agent else EndedBefore)
            if ended
            else InKeeper
            if runs or waits
            else LostBefore
            if lost or old
            else NotStarted
        )
        assert type(decision.attempts[ref]) is expected
