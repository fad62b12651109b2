"""Every state of an attempt against every event: protocol.md, section 2, as one table."""

import pytest

from windlass_coordinator.core.attempt_lifecycle import judge
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

OUR_NODE = NodeKey(1)
FENCE = Fence(40)

EVENTS: dict[str, Happening] = {
    "preparing": Preparing(),
    "prepare failed": PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason="no room"),
    "started": Started(),
    "exit 0": Exited(code=0, signal=None),
    "exit 0, uploading": Exited(code=0, signal=None, finalizing=True),
    "exit 7": Exited(code=7, signal=None, kind=FailureKind.USER_EXIT),
    "stop exit": Exited(code=None, signal=15, stopped=True),
    "finalized": Finalized(),
    "finalize failed": FinalizeFailed(reason="no such bucket"),
    "stopped early": StoppedEarly(),
    "lost": LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="keeper killed"),
}

# Rows: the state before. Columns: in the order of EVENTS, the state after an accepted event, or the
# verdict.
TABLE = """
LEASED      PREPARING  FAILED     RUNNING    SUCCEEDED  FINALIZING FAILED     LOST       LOST       FAILED     LOST       LOST
PREPARING   DUPLICATE  FAILED     RUNNING    SUCCEEDED  FINALIZING FAILED     LOST       LOST       FAILED     LOST       LOST
RUNNING     DUPLICATE  FAILED     DUPLICATE  SUCCEEDED  FINALIZING FAILED     LOST       LOST       FAILED     LOST       LOST
FINALIZING  DUPLICATE  FAILED     DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  SUCCEEDED  FAILED     LOST       LOST
STOPPING    DUPLICATE  STOPPED    DUPLICATE  STOPPED    STOPPED    STOPPED    STOPPED    STOPPED    STOPPED    STOPPED    LOST
SUCCEEDED   DUPLICATE  CONFLICT   DUPLICATE  DUPLICATE  DUPLICATE  CONFLICT   CONFLICT   DUPLICATE  CONFLICT   CONFLICT   CONFLICT
FAILED      DUPLICATE  DUPLICATE  DUPLICATE  CONFLICT   CONFLICT   DUPLICATE  CONFLICT   CONFLICT   DUPLICATE  DUPLICATE  DUPLICATE
STOPPED     DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE  DUPLICATE
LOST        SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED DUPLICATE
RELEASED    SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED SUPERSEDED
"""  # noqa: E501 (a table is read across)


def rows() -> list[tuple[AttemptState, str, str]]:
    cells = []
    for line in TABLE.strip().splitlines():
        state, *outcomes = line.split()
        cells += [
            (AttemptState(state), event, outcome) for event, outcome in zip(EVENTS, outcomes, strict=True)
        ]
    return cells


def an_attempt(state: AttemptState, **more: object) -> AttemptView:
    """The one attempt of our node; what succeeded exited with 0, what failed with 7."""
    codes = {AttemptState.SUCCEEDED: 0, AttemptState.FINALIZING: 0, AttemptState.FAILED: 7}
    fields: dict[str, object] = {
        "attempt": 1,
        "fence": FENCE,
        "state": state,
        "node_key": OUR_NODE,
        "failure": FailureKind.USER_EXIT if state is AttemptState.FAILED else None,
        "exit_code": codes.get(state),
        "exit_signal": None,
    }
    return AttemptView(**fields | more)  # type: ignore[arg-type]  # a mixed bag of fields


def an_event(what: Happening, *, fence: Fence = FENCE) -> AttemptEvent:
    return AttemptEvent(
        ref=AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=fence), seq=1, what=what
    )


def outcome_of(view: AttemptView | None, what: Happening, *, fence: Fence = FENCE) -> str:
    """The state after an accepted event, else the verdict."""
    judgement = judge(view, an_event(what, fence=fence), node_key=OUR_NODE)
    if judgement.verdict is EventVerdict.ACCEPTED:
        assert judgement.state is not None
        return judgement.state
    assert judgement.state is None, "only an accepted event may change anything"
    return judgement.verdict


def test_the_table_has_every_pair_of_state_and_event() -> None:
    assert len(rows()) == len(AttemptState) * len(EVENTS)


@pytest.mark.parametrize(("state", "event", "outcome"), rows())
def test_every_event_does_to_every_state_what_the_protocol_says(
    state: AttemptState, event: str, outcome: str
) -> None:
    assert outcome_of(an_attempt(state), EVENTS[event]) == outcome


@pytest.mark.parametrize("state", AttemptState)
@pytest.mark.parametrize("event", EVENTS)
def test_an_old_fence_is_superseded_in_every_state(state: AttemptState, event: str) -> None:
    assert outcome_of(an_attempt(state), EVENTS[event], fence=Fence(FENCE - 1)) == EventVerdict.SUPERSEDED


@pytest.mark.parametrize("state", AttemptState)
@pytest.mark.parametrize("event", EVENTS)
def test_a_fence_that_was_never_issued_is_superseded_too(state: AttemptState, event: str) -> None:
    assert outcome_of(an_attempt(state), EVENTS[event], fence=Fence(FENCE + 1)) == EventVerdict.SUPERSEDED


@pytest.mark.parametrize("state", AttemptState)
@pytest.mark.parametrize("event", EVENTS)
def test_another_nodes_attempt_is_unknown_whatever_is_said_of_it(state: AttemptState, event: str) -> None:
    view = an_attempt(state, node_key=NodeKey(2))

    assert outcome_of(view, EVENTS[event]) == EventVerdict.UNKNOWN
    assert outcome_of(view, EVENTS[event], fence=Fence(FENCE - 1)) == EventVerdict.UNKNOWN


@pytest.mark.parametrize("event", EVENTS)
def test_an_attempt_without_a_record_is_unknown(event: str) -> None:
    assert outcome_of(None, EVENTS[event]) == EventVerdict.UNKNOWN


@pytest.mark.parametrize(
    ("exited", "failure"),
    [
        (Exited(code=3, signal=None), FailureKind.USER_EXIT),
        (Exited(code=None, signal=9), FailureKind.USER_SIGNAL),
        (Exited(code=None, signal=None), FailureKind.USER_EXIT),
        (Exited(code=3, signal=None, finalizing=True), FailureKind.USER_EXIT),
        (Exited(code=0, signal=None, kind=FailureKind.TIMEOUT), FailureKind.TIMEOUT),
        (Exited(code=None, signal=9, kind=FailureKind.OOM), FailureKind.OOM),
    ],
)
def test_nothing_but_code_0_without_a_failure_is_a_success(exited: Exited, failure: FailureKind) -> None:
    judgement = judge(an_attempt(AttemptState.RUNNING), an_event(exited), node_key=OUR_NODE)

    assert (judgement.state, judgement.failure) == (AttemptState.FAILED, failure)


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        (FailureKind.INFRA_NODE_LOST, FailureKind.INFRA_NODE_LOST),
        (FailureKind.PREEMPTED, FailureKind.PREEMPTED),
        (FailureKind.USER_EXIT, FailureKind.INFRA_KEEPER_LOST),
    ],
)
def test_a_lost_attempt_is_never_the_users_failure(told: FailureKind, recorded: FailureKind) -> None:
    lost = an_event(LostOnNode(kind=told, reason=""))

    judgement = judge(an_attempt(AttemptState.RUNNING), lost, node_key=OUR_NODE)

    assert (judgement.state, judgement.failure) == (AttemptState.LOST, recorded)


def test_an_exit_whose_outputs_failed_to_upload_may_be_told_again() -> None:
    view = an_attempt(AttemptState.FAILED, failure=FailureKind.OUTPUT, exit_code=0)

    assert outcome_of(view, EVENTS["exit 0, uploading"]) == EventVerdict.DUPLICATE
    assert outcome_of(view, EVENTS["finalize failed"]) == EventVerdict.DUPLICATE
    assert outcome_of(view, EVENTS["finalized"]) == EventVerdict.CONFLICT
