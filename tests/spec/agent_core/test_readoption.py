"""What an agent makes of what its predecessor left."""

from windlass_agent.core.readoption import (
    EndedBefore,
    InKeeper,
    LostBefore,
    NotStarted,
    Readoption,
    SlotFinding,
    decide_readoption,
)
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


def an_attempt(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(7), index=index, attempt=1, fence=Fence(3))


def a_slot(
    *,
    running: int | None = None,
    queued: tuple[int, ...] = (),
    ended: tuple[ExitRecord, ...] = (),
    lost: tuple[int, ...] = (),
) -> SlotFinding:
    return SlotFinding(
        running=None if running is None else an_attempt(running),
        queued=tuple(map(an_attempt, queued)),
        ended=ended,
        lost=tuple(map(an_attempt, lost)),
    )


def an_exit(index: int, *, stopped: bool = False, started: bool = True) -> ExitRecord:
    return ExitRecord(
        ref=an_attempt(index),
        code=0,
        signal=None,
        kind=None,
        reason="",
        ran_for_us=1,
        user_cpu_us=0,
        system_cpu_us=0,
        peak_memory_bytes=0,
        stdout_end=0,
        stderr_end=0,
        started=started,
        stopped=stopped,
        leftover_processes=0,
    )


def decide(
    intents: tuple[int, ...],
    *slots: SlotFinding,
    before_boot: tuple[int, ...] = (),
    ended_by_agent: tuple[int, ...] = (),
) -> Readoption:
    return decide_readoption(
        map(an_attempt, intents),
        dict(enumerate(slots)),
        before_boot=frozenset(map(an_attempt, before_boot)),
        ended_by_agent=frozenset(map(an_attempt, ended_by_agent)),
    )


def test_an_attempt_that_no_slot_knows_has_not_started() -> None:
    assert decide((1,), a_slot()).attempts == {an_attempt(1): NotStarted()}


def test_what_a_living_keeper_has_goes_on_there() -> None:
    found = decide((1, 2), a_slot(running=2, queued=(1,)))
    assert found.attempts == {
        an_attempt(2): InKeeper(slot=0, is_running=True),
        an_attempt(1): InKeeper(slot=0, is_running=False),
    }
    assert list(found.attempts) == [an_attempt(2), an_attempt(1)]


def test_an_exit_record_is_the_result() -> None:
    assert decide((1,), a_slot(), a_slot(ended=(an_exit(1),))).attempts == {
        an_attempt(1): EndedBefore(slot=1, record=an_exit(1))
    }


def test_without_an_exit_record_a_dead_keepers_command_is_lost_never_successful() -> None:
    (finding,) = decide((1,), a_slot(lost=(1,))).attempts.values()
    assert isinstance(finding, LostBefore)
    assert finding.what.kind is FailureKind.INFRA_KEEPER_LOST


def test_after_a_reboot_everything_without_an_exit_record_is_lost_with_the_machine() -> None:
    found = decide((1, 2, 3), a_slot(ended=(an_exit(1),), lost=(2,)), before_boot=(1, 2, 3))
    kinds = [finding.what.kind for finding in found.attempts.values() if isinstance(finding, LostBefore)]
    assert kinds == [FailureKind.INFRA_NODE_LOST] * 2
    assert isinstance(found.attempts[an_attempt(1)], EndedBefore)


def test_what_is_in_a_slot_without_an_intent_is_a_stranger() -> None:
    found = decide((), a_slot(running=1, ended=(an_exit(2),)))
    assert found.attempts == {}
    assert set(found.strangers) == {(0, an_attempt(1)), (0, an_attempt(2))}


def test_a_command_that_the_agent_took_down_with_itself_is_lost_not_stopped() -> None:
    (finding,) = decide(
        (1,), a_slot(ended=(an_exit(1, stopped=True),)), ended_by_agent=(1,)
    ).attempts.values()
    assert isinstance(finding, LostBefore)
    assert finding.what.kind is FailureKind.INFRA_NODE_LOST


def test_a_command_that_was_asked_to_stop_is_stopped_also_when_the_agent_ended() -> None:
    record = an_exit(1, stopped=True)
    assert decide((1,), a_slot(ended=(record,))).attempts == {
        an_attempt(1): EndedBefore(slot=0, record=record)
    }
