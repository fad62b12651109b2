"""Every event in every state of an attempt, and every way in which a history can be delivered."""

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_coordinator.core.attempt_lifecycle import Judgement, judge
from windlass_coordinator.core.records import AttemptView
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
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import EventVerdict

NODE = NodeKey(7)
FENCE = Fence((1 << 40) + 5)
LIVE = [state for state in AttemptState if not state.is_terminal]
S = AttemptState

MAY_BECOME: dict[AttemptState, set[AttemptState]] = {
    S.LEASED: {S.PREPARING, S.RUNNING, S.FINALIZING, S.SUCCEEDED, S.FAILED, S.LOST},
    S.PREPARING: {S.RUNNING, S.FINALIZING, S.SUCCEEDED, S.FAILED, S.LOST},
    S.RUNNING: {S.FINALIZING, S.SUCCEEDED, S.FAILED, S.LOST},
    S.FINALIZING: {S.SUCCEEDED, S.FAILED, S.LOST},
    S.STOPPING: {S.STOPPED, S.LOST},
}
"""protocol.md, section 2: a later event implies the earlier ones."""

kinds = st.sampled_from(FailureKind)
endings = st.tuples(st.integers(0, 255), st.none()) | st.tuples(st.none(), st.integers(1, 64))
any_exit = st.builds(
    lambda ending, **more: Exited(code=ending[0], signal=ending[1], **more),
    endings,
    kind=st.none() | kinds,
    finalizing=st.booleans(),
    stopped=st.booleans(),
)
happenings: st.SearchStrategy[Happening] = st.one_of(
    any_exit,
    st.sampled_from([Preparing(), Started(), Finalized(), StoppedEarly()]),
    st.builds(FinalizeFailed, reason=st.just("no bucket")),
    st.builds(PrepareFailed, kind=kinds, reason=st.just("no package")),
    st.builds(LostOnNode, kind=kinds, reason=st.just("killed")),
)


def a_view(state: AttemptState, **more: object) -> AttemptView:
    fields: dict[str, object] = {"failure": None, "exit_code": None, "exit_signal": None, "node_key": NODE}
    return AttemptView(attempt=1, fence=FENCE, state=state, **fields | more)  # type: ignore[arg-type]  # by name


def told(what: Happening, *, fence: Fence = FENCE) -> AttemptEvent:
    return AttemptEvent(
        ref=AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=fence), seq=1, what=what
    )


def proves_success(state: AttemptState, what: Happening) -> bool:
    """Code 0 with nothing against it, or the upload after such an exit."""
    match what:
        case Exited(code=0, kind=None, finalizing=False, stopped=False):
            return True
        case Finalized():
            return state is S.FINALIZING
    return False


@examples(250)
@given(st.sampled_from(LIVE), happenings)
def test_a_live_attempt_moves_along_the_table_and_succeeds_only_with_code_0(
    state: AttemptState, what: Happening
) -> None:
    judgement = judge(a_view(state), told(what), node_key=NODE)
    assert (judgement.verdict is EventVerdict.ACCEPTED) == (judgement.state is not None)
    if judgement.state is not None:
        assert judgement.state in MAY_BECOME[state]
        assert judgement.state is not S.SUCCEEDED or proves_success(state, what)
        assert judgement.state is not S.FAILED or judgement.failure is not None
        is_lost = judgement.state is S.LOST
        assert not is_lost or (judgement.failure and not judgement.failure.spends_user_budget), "I9"


@examples(250)
@given(
    st.sampled_from([state for state in AttemptState if state.is_terminal]),
    happenings,
    st.none() | kinds,
    endings,
)
def test_a_terminal_attempt_never_changes(
    state: AttemptState, what: Happening, failure: FailureKind | None, ending: tuple[int | None, int | None]
) -> None:
    view = a_view(state, failure=failure, exit_code=ending[0], exit_signal=ending[1])
    judgement = judge(view, told(what), node_key=NODE)
    assert judgement == Judgement(verdict=judgement.verdict)
    assert judgement.verdict is not EventVerdict.ACCEPTED


@examples(200)
@given(st.sampled_from(AttemptState), happenings, st.integers(0, 2**41).filter(lambda fence: fence != FENCE))
def test_an_old_fence_changes_nothing_and_a_stranger_is_told_nothing(
    state: AttemptState, what: Happening, fence: int
) -> None:
    old = told(what, fence=Fence(fence))
    assert judge(a_view(state), old, node_key=NODE) == Judgement(verdict=EventVerdict.SUPERSEDED)
    assert judge(a_view(state), told(what), node_key=NodeKey(8)) == Judgement(verdict=EventVerdict.UNKNOWN)
    assert judge(None, told(what), node_key=NODE) == Judgement(verdict=EventVerdict.UNKNOWN)


def test_every_kind_of_event_was_met_in_every_live_state() -> None:
    plain: list[Happening] = [
        Preparing(),
        Started(),
        Finalized(),
        StoppedEarly(),
        FinalizeFailed(reason=""),
        PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=""),
        LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason=""),
        Exited(code=0, signal=None),
        Exited(code=0, signal=None, finalizing=True),
        Exited(code=3, signal=None),
        Exited(code=None, signal=9, stopped=True),
    ]
    outcomes = {
        (state, number): judge(a_view(state), told(what), node_key=NODE).state
        for state, (number, what) in product(LIVE, enumerate(plain))
    }
    for state in LIVE:
        reached = {outcome for (since, _), outcome in outcomes.items() if since is state and outcome}
        assert reached == MAY_BECOME[state], state


@st.composite
def histories(draw: st.DrawFn) -> list[Happening]:
    """What a node may truly tell of one attempt, in the order in which it happened."""
    begun: list[Happening] = [Preparing(), Started()][: draw(st.integers(0, 2))]
    exits = st.builds(lambda code: Exited(code=code, signal=None), st.sampled_from([0, 1]))
    ends: list[list[Happening]] = [
        [draw(exits)],
        [Exited(code=None, signal=9)],
        [Exited(code=None, signal=15, stopped=True)],
        [Exited(code=0, signal=None, finalizing=True), Finalized()],
        [Exited(code=0, signal=None, finalizing=True), FinalizeFailed(reason="no bucket")],
        [LostOnNode(kind=draw(kinds), reason="killed")],
        [StoppedEarly()],
        [PrepareFailed(kind=draw(kinds), reason="no package")],
    ]
    return begun + draw(st.sampled_from(ends))


def after(view: AttemptView, what: Happening) -> tuple[AttemptView, EventVerdict]:
    judgement = judge(view, told(what), node_key=NODE)
    if judgement.state is None:
        return view, judgement.verdict
    view = replace(view, state=judgement.state, failure=judgement.failure)
    if isinstance(what, Exited):
        view = replace(view, exit_code=what.code, exit_signal=what.signal)
    return view, judgement.verdict


def stopped(view: AttemptView) -> AttemptView:
    return view if view.state.is_terminal else replace(view, state=S.STOPPING)


@examples(150)
@given(st.data(), histories(), st.none() | st.integers(0, 4))
def test_repeats_late_copies_and_lost_progress_do_not_change_the_end(
    data: st.DataObject, history: list[Happening], stop_before: int | None
) -> None:
    """The stop is committed before the same event in both; what decides is the order of commits."""
    clean = noisy = a_view(S.LEASED)
    for position, what in enumerate(history):
        if position == stop_before:
            clean, noisy = stopped(clean), stopped(noisy)
        clean, _ = after(clean, what)
        if not (isinstance(what, Preparing | Started) and data.draw(st.booleans(), label="lost")):
            noisy, _ = after(noisy, what)
        for late in data.draw(st.lists(st.sampled_from(history[: position + 1]), max_size=4), label="again"):
            noisy, verdict = after(noisy, late)
            is_late_progress = isinstance(late, Preparing | Started) and not noisy.state.is_terminal
            assert is_late_progress or verdict in (EventVerdict.DUPLICATE, EventVerdict.SUPERSEDED)
    assert clean.state.is_terminal
    assert noisy == clean
