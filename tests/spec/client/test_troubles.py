"""What is told of instances that failed, and the exit code that follows."""

from datetime import UTC, datetime

import pytest

from windlass.cli.troubles import exit_code_of, print_troubles
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import DEFAULT_CLUSTER, JobId, NodeId, TaskName
from windlass_proto.model.states import AttemptState, InstanceState, JobState, TaskState
from windlass_proto.model.status import AttemptStatus, InstanceCounts, InstanceStatus, JobStatus, TaskStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = TaskName("count")


def a_job(*, state: JobState = JobState.FAILED, failed: int = 1) -> JobStatus:
    task = TaskStatus(
        name=COUNT,
        state=TaskState.FAILED,
        after=(),
        cluster=DEFAULT_CLUSTER,
        instances=20,
        counts=InstanceCounts(failed=failed),
        started_at=NOW,
        ended_at=NOW,
        reason="",
    )
    return JobStatus(
        job_id=JobId("job-" + "0" * 32),
        name="x",
        description="",
        state=state,
        reason="",
        generation=1,
        priority=0,
        fail_on_instance_failure=True,
        submitted_at=NOW,
        started_at=NOW,
        ended_at=NOW,
        tasks=(task,),
    )


def a_failed_instance(
    *, failure: FailureKind = FailureKind.USER_EXIT, reason: str = "", exit_code: int | None = None
) -> InstanceStatus:
    attempt = AttemptStatus(
        attempt=1,
        fence=1,
        state=AttemptState.FAILED,
        node_id=NodeId("node-1"),
        node_name="laptop-1",
        failure=failure,
        reason=reason,
        exit_code=exit_code,
        exit_signal=None,
        leased_at=NOW,
        started_at=NOW,
        ended_at=NOW,
        ran_for=None,
        user_cpu=None,
        system_cpu=None,
        peak_memory_bytes=0,
        stdout_bytes=None,
        stderr_bytes=None,
    )
    return InstanceStatus(
        task=COUNT,
        index=4,
        state=InstanceState.FAILED,
        user_failures=1,
        infra_failures=0,
        attempts=(attempt,),
    )


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        (a_failed_instance(reason="exit code 3", exit_code=3), "USER_EXIT exit code 3"),
        (a_failed_instance(reason="no output", exit_code=3), "USER_EXIT no output (exit code 3)"),
        (a_failed_instance(exit_code=3), "USER_EXIT exit code 3"),
        (a_failed_instance(failure=FailureKind.TIMEOUT, reason="ran too long"), "TIMEOUT ran too long"),
        (a_failed_instance(reason="a\x1b[31mb"), "USER_EXIT ab"),
    ],
)
def test_the_kind_the_reason_and_the_exit_code_are_told_once(
    instance: InstanceStatus, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_troubles(a_job(), [instance], err=True)
    assert capsys.readouterr() == (
        "",
        f"\ncount/4 failed on laptop-1: {told}\n  see: windlass logs job-0000000000 count/4 --stderr\n",
    )


def test_that_more_have_failed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_troubles(a_job(failed=12), [a_failed_instance()])
    assert capsys.readouterr().out.endswith("\n(11 more failed: windlass job job-0000000000 TASK)\n")


@pytest.mark.parametrize(("exit_code", "expected"), [(7, 7), (None, 1), (0, 1), (300, 1)])
def test_the_exit_code_is_that_of_the_first_failed_instance(exit_code: int | None, expected: int) -> None:
    assert exit_code_of(a_job(), [a_failed_instance(exit_code=exit_code)]) == expected


def test_the_exit_code_is_0_when_the_job_succeeded_and_1_when_nothing_of_it_ran() -> None:
    assert exit_code_of(a_job(state=JobState.SUCCEEDED), [a_failed_instance(exit_code=7)]) == 0
    assert exit_code_of(a_job(state=JobState.STOPPED), []) == 1
