"""What an event does to an attempt (protocol.md, section 2, as one function)."""

from dataclasses import dataclass

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
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import EventVerdict

NO_EXIT = "its node told that its outputs are uploaded, but never that it had ended"
UNASKED_STOP = "stopped on the node by a request that is not on record here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The answer to an event, and the attempt's state after it."""

    verdict: EventVerdict
    state: AttemptState | None = None
    """None = unchanged: nothing is written."""
    failure: FailureKind | None = None
    reason: str = ""


_DUPLICATE = Judgement(verdict=EventVerdict.DUPLICATE)
_CONFLICT = Judgement(verdict=EventVerdict.CONFLICT)
_SUPERSEDED = Judgement(verdict=EventVerdict.SUPERSEDED)
_ACCEPT = {state: Judgement(verdict=EventVerdict.ACCEPTED, state=state) for state in AttemptState}
_ORDER = {
    AttemptState.LEASED: 0,
    AttemptState.PREPARING: 1,
    AttemptState.RUNNING: 2,
    AttemptState.FINALIZING: 3,
}


def judge(view: AttemptView | None, event: AttemptEvent, *, node_key: NodeKey) -> Judgement:
    """Decides on one event of one attempt, as reported by the node `node_key`."""
    if view is None or view.node_key != node_key:
        return Judgement(verdict=EventVerdict.UNKNOWN)
    if view.fence != event.ref.fence:
        return _SUPERSEDED
    if view.state.is_terminal:
        return _judge_late(view, event.what)
    return _judge_live(view.state, event.what)


def _judge_live(state: AttemptState, what: Happening) -> Judgement:
    match what:
        case Preparing():
            return _progress(state, AttemptState.PREPARING)
        case Started():
            return _progress(state, AttemptState.RUNNING)
        case Exited():
            return _judge_exit(state, what)
        case Finalized(note=note):
            return _judge_finalized(state, note)
        case FinalizeFailed(reason=reason):
            return _failed(state, FailureKind.OUTPUT, reason)
        case PrepareFailed(kind=kind, reason=reason):
            return _failed(state, kind, reason)
        case StoppedEarly():
            return _stopped(state)
        case LostOnNode(kind=kind, reason=reason):
            # Whatever the node calls it: a lost attempt spends nothing of the user's (invariant I9).
            failure = FailureKind.INFRA_KEEPER_LOST if kind.spends_user_budget else kind
            return Judgement(
                verdict=EventVerdict.ACCEPTED, state=AttemptState.LOST, failure=failure, reason=reason
            )


def _progress(state: AttemptState, to: AttemptState) -> Judgement:
    # A stopping attempt stays so; a late earlier event changes nothing.
    if state is AttemptState.STOPPING or _ORDER[state] >= _ORDER[to]:
        return _DUPLICATE
    return _ACCEPT[to]


def _judge_exit(state: AttemptState, what: Exited) -> Judgement:
    if state is AttemptState.STOPPING:
        # The stop was committed first, so it decides (protocol.md, section 2).
        return Judgement(verdict=EventVerdict.ACCEPTED, state=AttemptState.STOPPED, reason=what.reason)
    if state is AttemptState.FINALIZING:
        return _DUPLICATE
    if what.stopped:
        return _stopped(state)
    kind = _failure_of(what)
    if kind is not None:
        return _failed(state, kind, what.reason)
    if what.reason and not what.finalizing:
        # Such as: processes that it left behind had to be ended.
        return Judgement(verdict=EventVerdict.ACCEPTED, state=AttemptState.SUCCEEDED, reason=what.reason)
    return _ACCEPT[AttemptState.FINALIZING if what.finalizing else AttemptState.SUCCEEDED]


def _failure_of(what: Exited) -> FailureKind | None:
    """What the node says; but without code 0 there is no success, whatever it says (invariant I7)."""
    if what.kind is not None or what.code == 0:
        return what.kind
    return FailureKind.USER_EXIT if what.signal is None else FailureKind.USER_SIGNAL


def _judge_finalized(state: AttemptState, note: str) -> Judgement:
    if state is AttemptState.STOPPING:
        return _ACCEPT[AttemptState.STOPPED]
    if state is AttemptState.FINALIZING:
        return Judgement(verdict=EventVerdict.ACCEPTED, state=AttemptState.SUCCEEDED, reason=note)
    # Without an exit record there is no success (invariant I7), and nothing more of it will come.
    return Judgement(
        verdict=EventVerdict.ACCEPTED,
        state=AttemptState.LOST,
        failure=FailureKind.INFRA_KEEPER_LOST,
        reason=NO_EXIT,
    )


def _stopped(state: AttemptState) -> Judgement:
    if state is AttemptState.STOPPING:
        return _ACCEPT[AttemptState.STOPPED]
    return Judgement(
        verdict=EventVerdict.ACCEPTED,
        state=AttemptState.LOST,
        failure=FailureKind.INFRA_KEEPER_LOST,
        reason=UNASKED_STOP,
    )


def _failed(state: AttemptState, kind: FailureKind, reason: str) -> Judgement:
    to = AttemptState.STOPPED if state is AttemptState.STOPPING else AttemptState.FAILED
    return Judgement(verdict=EventVerdict.ACCEPTED, state=to, failure=kind, reason=reason)


def _judge_late(view: AttemptView, what: Happening) -> Judgement:
    """A terminal attempt never changes; the answer only says whether the event fits the record."""
    if view.state in (AttemptState.LOST, AttemptState.RELEASED):
        # Its fence was raised when it was revoked, so whatever comes with it is old.
        said_before = view.state is AttemptState.LOST and isinstance(what, LostOnNode)
        return _DUPLICATE if said_before else _SUPERSEDED
    match what:
        case Exited(code=code, signal=signal) if (
            view.state in (AttemptState.SUCCEEDED, AttemptState.FAILED)
            and view.failure is not FailureKind.OUTPUT
        ):
            same = (code, signal) == (view.exit_code, view.exit_signal)
        case Finalized():
            same = view.state in (AttemptState.SUCCEEDED, AttemptState.STOPPED)
        case PrepareFailed() | FinalizeFailed() | StoppedEarly() | LostOnNode():
            same = view.state is not AttemptState.SUCCEEDED
        case _:
            same = True
    return _DUPLICATE if same else _CONFLICT
