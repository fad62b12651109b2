"""Which events of an attempt are told, and in which order."""

from windlass_agent.core.attempt_phases import PendingEvents, is_last
from windlass_proto.model.events import (
    AttemptEvent,
    Exited,
    Finalized,
    FinalizeFailed,
    Happening,
    LostOnNode,
    Preparing,
    Started,
    StoppedEarly,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

EXITED = Exited(code=0, signal=None)
FINALIZING = Exited(code=0, signal=None, finalizing=True)


def an_attempt(index: int = 0) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(7), index=index, attempt=1, fence=Fence(3))


def told(pending: PendingEvents) -> list[Happening]:
    return [event.what for event in pending.take(100)]


def test_a_result_makes_earlier_events_superfluous() -> None:
    pending = PendingEvents()
    for what in (Preparing(), Started(), EXITED):
        pending.add(an_attempt(), what)
    assert pending.take(100) == [AttemptEvent(ref=an_attempt(), seq=3, what=EXITED)]


def test_an_exit_is_told_before_what_became_of_the_outputs() -> None:
    pending = PendingEvents()
    for what in (Started(), FINALIZING, Finalized()):
        pending.add(an_attempt(), what)
    assert told(pending) == [FINALIZING, Finalized()]


def test_an_exit_that_is_to_be_told_again_comes_before_what_became_of_the_outputs() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(), Finalized())
    for what in (FINALIZING, Finalized(), FINALIZING):
        pending.add(an_attempt(), what)
    assert told(pending) == [FINALIZING, Finalized()]
    assert not pending.has_result


def test_an_event_that_comes_after_a_later_one_is_not_told() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(), EXITED)
    pending.add(an_attempt(), Started())
    assert told(pending) == [EXITED]


def test_the_same_event_is_told_once() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(), EXITED)
    pending.add(an_attempt(), EXITED)
    assert told(pending) == [EXITED]
    assert not pending.has_result


def test_events_come_out_in_the_order_in_which_attempts_first_had_one() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(1), Started())
    pending.add(an_attempt(2), EXITED)
    pending.add(an_attempt(1), EXITED)
    assert [event.ref.index for event in pending.take(100)] == [1, 2]


def test_only_results_are_in_a_hurry() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(1), Started())
    assert not pending.has_result
    pending.add(an_attempt(2), StoppedEarly())
    assert pending.has_result
    pending.take(100)
    assert not pending.has_result


def test_a_limited_take_leaves_the_rest_and_its_hurry() -> None:
    pending = PendingEvents()
    for index in range(3):
        pending.add(an_attempt(index), EXITED)
    assert [event.ref.index for event in pending.take(2)] == [0, 1]
    assert pending.has_result
    assert [event.ref.index for event in pending.take(2)] == [2]
    assert not pending.has_result


def test_events_without_an_answer_are_told_again_unless_a_newer_one_implies_them() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(1), Started())
    pending.add(an_attempt(2), Started())
    unanswered = pending.take(100)
    pending.add(an_attempt(1), EXITED)
    pending.put_back(unanswered)
    assert told(pending) == [EXITED, Started()]


def test_an_unanswered_exit_is_told_again_before_the_end_of_its_upload() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(), FINALIZING)
    unanswered = pending.take(100)
    pending.add(an_attempt(), FinalizeFailed(reason="no such bucket"))
    pending.put_back(unanswered)
    assert told(pending) == [FINALIZING, FinalizeFailed(reason="no such bucket")]


def test_nothing_is_told_of_a_dropped_attempt() -> None:
    pending = PendingEvents()
    pending.add(an_attempt(), EXITED)
    pending.drop(an_attempt())
    assert told(pending) == []
    assert not pending.has_result


def test_an_exit_is_the_last_event_unless_outputs_follow() -> None:
    lost = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="gone")
    assert [is_last(what) for what in (Preparing(), Started(), FINALIZING)] == [False] * 3
    assert [is_last(what) for what in (EXITED, Finalized(), StoppedEarly(), lost)] == [True] * 4
