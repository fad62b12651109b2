"""What an exit code of a container means, together with what was written down beside it."""

from dataclasses import replace

import pytest

from windlass_agent.containers.outcome import ContainerOutcome, judged
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

RECORD = ExitRecord(
    ref=AttemptRef(task_key=TaskKey(7), index=0, attempt=1, fence=Fence(1)),
    code=137,
    signal=None,
    kind=FailureKind.USER_EXIT,
    reason="exit code 137",
    ran_for_us=5,
    user_cpu_us=6,
    system_cpu_us=7,
    peak_memory_bytes=8,
    stdout_end=9,
    stderr_end=10,
    started=True,
    stopped=False,
    leftover_processes=0,
)
"""Of the process that stood for the container."""
PLAIN = replace(RECORD, user_cpu_us=0, system_cpu_us=0, peak_memory_bytes=0)
"""What that process used says nothing of the container."""
ENDED = ContainerOutcome(removed=True)


def test_an_exit_code_stays_what_it_is() -> None:
    assert judged(RECORD, ENDED, memory_bytes=0) == PLAIN


def test_out_of_memory_is_told_from_being_killed() -> None:
    found = judged(RECORD, replace(ENDED, oom=True), memory_bytes=100)
    reason = "needed more than its 100 bytes of memory; exit code 137"
    assert found == replace(PLAIN, kind=FailureKind.OOM, reason=reason)


def test_a_command_that_went_on_after_the_kernel_ended_a_child_of_it_has_not_failed() -> None:
    success = replace(RECORD, code=0, kind=None, reason="")
    assert judged(success, replace(ENDED, oom=True), memory_bytes=100).kind is None


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        (ContainerOutcome(failed="no space"), FailureKind.INFRA_PREPARE, "could not be made: no space"),
        (ContainerOutcome(not_started="x: not found"), FailureKind.USER_CONFIG, "x: not found"),
        (ContainerOutcome(lost="the engine went away"), FailureKind.INFRA_KEEPER_LOST, "went away"),
    ],
)
def test_what_is_not_the_commands_doing_is_told_by_its_cause(
    outcome: ContainerOutcome, kind: FailureKind, words: str
) -> None:
    found = judged(replace(RECORD, code=125), outcome, memory_bytes=0)
    assert found.kind is kind
    assert words in found.reason


def test_a_success_whose_container_was_lost_is_none() -> None:
    found = judged(replace(RECORD, code=0, kind=None), ContainerOutcome(lost="gone"), memory_bytes=0)
    assert found.kind is FailureKind.INFRA_KEEPER_LOST


def test_when_the_process_that_waited_was_killed_the_command_is_not_blamed() -> None:
    killed = replace(RECORD, code=None, signal=9, kind=FailureKind.USER_SIGNAL, reason="signal SIGKILL")
    found = judged(killed, ContainerOutcome(removed=True, killed=True), memory_bytes=0)
    assert found.kind is FailureKind.INFRA_KEEPER_LOST


@pytest.mark.parametrize(
    "changes", [{"kind": FailureKind.TIMEOUT}, {"stopped": True}, {"disconnected": True}]
)
def test_what_the_keeper_ended_ended_for_the_keepers_reason(changes: dict[str, object]) -> None:
    record = replace(RECORD, code=None, signal=9, **changes)  # type: ignore[arg-type]  # fields of its own
    found = judged(record, ContainerOutcome(removed=True, killed=True, oom=True), memory_bytes=0)
    assert (found.kind, found.reason) == (record.kind, record.reason)
