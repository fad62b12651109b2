"""When a task and a job end, and as what."""

from typing import Any

import pytest

from windlass_coordinator.core.job_lifecycle import decide_job_end, decide_task_end
from windlass_coordinator.core.records import ClusterKey, JobKey, TaskBump, TaskView
from windlass_proto.model.ids import TaskKey, TaskName
from windlass_proto.model.states import JobState, TaskState


def a_task(*, state: TaskState = TaskState.RUNNING, instances: int = 3, **counters: int) -> TaskView:
    fields: dict[str, Any] = dict.fromkeys(
        ("ready_again", "active", "retry_wait", "succeeded", "failed", "stopped", "max_retries"), 0
    )
    return TaskView(
        task_key=TaskKey(1),
        job_key=JobKey(1),
        name=TaskName("task"),
        state=state,
        cluster_key=ClusterKey(1),
        instance_count=instances,
        next_index=instances,
        **(fields | counters),
    )


def test_a_task_goes_on_until_all_its_instances_have_ended() -> None:
    task = a_task(active=2, succeeded=1)

    assert decide_task_end(task, TaskBump(active=-1, succeeded=1)) is None
    assert decide_task_end(task, TaskBump(active=-2, succeeded=2)) is TaskState.SUCCEEDED


def test_instances_that_were_never_claimed_keep_a_task_going() -> None:
    assert decide_task_end(a_task(instances=100, active=3), TaskBump(active=-3, succeeded=3)) is None


def test_an_instance_that_waits_for_its_retry_keeps_a_task_going() -> None:
    assert decide_task_end(a_task(active=1, succeeded=2), TaskBump(active=-1, retry_wait=1)) is None


def test_one_failed_instance_fails_the_task_when_all_have_ended() -> None:
    assert decide_task_end(a_task(active=1, succeeded=2), TaskBump(active=-1, failed=1)) is TaskState.FAILED


@pytest.mark.parametrize(
    ("failed", "ends_as"), [(0, TaskState.STOPPED), (1, TaskState.FAILED)], ids=["stopped", "failed before"]
)
def test_a_stopping_task_ends_with_its_last_live_attempt(failed: int, ends_as: TaskState) -> None:
    task = a_task(state=TaskState.STOPPING, instances=100, active=2, failed=failed)

    assert decide_task_end(task, TaskBump(active=-1, stopped=1)) is None
    assert decide_task_end(task, TaskBump(active=-2, stopped=2)) is ends_as


@pytest.mark.parametrize(
    ("states", "ends_as"),
    [
        ([TaskState.SUCCEEDED], JobState.SUCCEEDED),
        ([TaskState.SUCCEEDED, TaskState.FAILED], JobState.FAILED),
        ([TaskState.STOPPED, TaskState.FAILED], JobState.FAILED),
        ([TaskState.SUCCEEDED, TaskState.STOPPED], JobState.STOPPED),
        ([TaskState.SUCCEEDED, TaskState.SKIPPED], JobState.STOPPED),
    ],
)
def test_a_job_ends_as_its_worst_task(states: list[TaskState], ends_as: JobState) -> None:
    assert decide_job_end(states, stop_as=None) is ends_as


@pytest.mark.parametrize("stop_as", [JobState.STOPPED, JobState.FAILED])
def test_a_stopping_job_ends_as_what_stopped_it(stop_as: JobState) -> None:
    assert decide_job_end([TaskState.FAILED, TaskState.STOPPED], stop_as=stop_as) is stop_as
