"""Tasks in their order, and what becomes of those after a failure."""

from typing import Any

import pytest

from tests.support.builders import a_job, a_task, exits, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import JobState, TaskState
from windlass_proto.model.status import InstanceCounts

WAITING, READY, RUNNING, STOPPING, SUCCEEDED, FAILED, STOPPED, SKIPPED = TaskState


def a_diamond(**more: Any) -> JobSpec:
    tasks = (
        a_task("split"),
        a_task("left", after=("split",), instances=2),
        a_task("right", after=("split",)),
        a_task("merge", after=("left", "right")),
    )
    return a_job(*tasks, **more)


def test_a_chain_runs_one_task_after_the_other(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("c", after=("b",)), a_task("a"), a_task("b", after=("a",))))
    node = coordinator.node()
    order = []
    for _ in range(3):
        (batch,) = coordinator.claim_batches(node, want=9)
        order.append(batch.task.name)
        coordinator.report(node, node.held[-1], exits())

    assert order == ["a", "b", "c"]
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_a_task_waits_for_every_instance_of_its_parent(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a", instances=3), a_task("b", after=("a",), instances=5)))
    node = coordinator.node()
    refs = coordinator.claim(node, want=9)
    for ref in refs[:2]:
        coordinator.report(node, ref, exits())

    assert coordinator.task_states(job) == {"a": RUNNING, "b": WAITING}
    assert coordinator.claim(node, want=9) == []

    coordinator.report(node, refs[2], exits())

    assert coordinator.task_states(job) == {"a": SUCCEEDED, "b": READY}
    assert len(coordinator.claim(node, want=9)) == 5


def test_a_diamond_opens_and_closes(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_diamond())
    node = coordinator.node()
    coordinator.finish(node)
    assert coordinator.task_states(job) == {
        "split": SUCCEEDED,
        "left": READY,
        "right": READY,
        "merge": WAITING,
    }
    refs = coordinator.claim(node, want=9)
    coordinator.report_all(node, [told(ref, exits()) for ref in refs[:2]])
    assert coordinator.task_states(job)["merge"] is WAITING
    coordinator.report(node, refs[2], exits())
    assert coordinator.task_states(job)["merge"] is READY
    coordinator.finish(node)

    assert coordinator.state(job) is JobState.SUCCEEDED


def test_parents_that_end_in_one_report_open_their_child_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_diamond())
    node = coordinator.node()
    coordinator.finish(node)

    coordinator.finish(node)

    assert coordinator.task_states(job)["merge"] is READY
    assert len(coordinator.claim(node, want=9)) == 1


def test_many_children_become_ready_at_once(coordinator: InMemoryCoordinator) -> None:
    children = [a_task(f"child-{n}", after=("root",)) for n in range(40)]
    coordinator.submit(a_job(a_task("root"), *children))
    node = coordinator.node()
    coordinator.finish(node)

    assert len(coordinator.claim(node, want=100)) == 40


def test_a_failed_instance_ends_the_job_when_it_asked_for_that(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_diamond(fail_on_instance_failure=True))
    node = coordinator.node()
    coordinator.finish(node)
    left, _, right = coordinator.claim(node, want=9)

    coordinator.report(node, left, exits(7))

    status = coordinator.status(job)
    assert (status.state, status.reason) == (JobState.STOPPING, "an instance of task left failed")
    assert coordinator.task_states(job) == {
        "split": SUCCEEDED,
        "left": STOPPING,
        "right": STOPPING,
        "merge": SKIPPED,
    }
    coordinator.report(node, right, exits(0))
    assert coordinator.state(job) is JobState.STOPPING
    coordinator.report(node, node.held[2], exits(0))
    assert (coordinator.state(job), coordinator.task_states(job)) == (
        JobState.FAILED,
        {"split": SUCCEEDED, "left": FAILED, "right": STOPPED, "merge": SKIPPED},
    )
    assert coordinator.counts(job, "left") == InstanceCounts(failed=1, stopped=1)


def test_a_failing_job_gives_out_no_more_work(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=100)))
    node = coordinator.node()
    ref, other = coordinator.claim(node, want=2)

    coordinator.report(node, ref, exits(7))

    assert coordinator.claim(node, want=9) == []
    coordinator.report(node, other, exits())
    assert coordinator.state(job) is JobState.FAILED
    assert coordinator.counts(job) == InstanceCounts(failed=1, stopped=99)


def test_what_waits_for_its_retry_is_stopped_when_the_job_fails(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("retried", max_retries=3), a_task("last")))
    node = coordinator.node()
    retried, last = coordinator.claim(node, want=2)
    coordinator.report(node, retried, exits(7))

    coordinator.report(node, last, exits(7))

    assert coordinator.state(job) is JobState.FAILED
    assert coordinator.task_states(job) == {"retried": STOPPED, "last": FAILED}
    assert coordinator.ready_due() is None


def test_a_failure_and_a_success_in_one_report_both_count(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=2), fail_on_instance_failure=True))
    node = coordinator.node()
    good, bad = coordinator.claim(node, want=2)

    coordinator.report_all(node, [told(good, exits()), told(bad, exits(7))])

    assert coordinator.state(job) is JobState.FAILED
    assert coordinator.counts(job) == InstanceCounts(succeeded=1, failed=1)


def test_a_failed_instance_leaves_the_others_alone_when_it_was_asked_to(
    coordinator: InMemoryCoordinator,
) -> None:
    spec = a_job(
        a_task("a", instances=3),
        a_task("after-a", after=("a",)),
        a_task("later", after=("after-a",)),
        a_task("b"),
        a_task("after-b", after=("b",)),
        fail_on_instance_failure=False,
    )
    job = coordinator.submit(spec)
    node = coordinator.node()
    first, second, third, b = coordinator.claim(node, want=9)
    coordinator.report(node, first, exits(7))
    assert coordinator.task_states(job)["a"] is RUNNING
    coordinator.report_all(node, [told(second, exits()), told(third, exits())])

    assert coordinator.task_states(job) == {
        "a": FAILED,
        "after-a": SKIPPED,
        "later": SKIPPED,
        "b": RUNNING,
        "after-b": WAITING,
    }
    assert coordinator.state(job) is JobState.RUNNING
    coordinator.report(node, b, exits())
    coordinator.finish(node)
    status = coordinator.status(job)
    assert (status.state, status.reason) == (JobState.FAILED, "task a failed")
    assert coordinator.counts(job, "a") == InstanceCounts(succeeded=2, failed=1)


def test_a_child_of_a_failed_and_a_running_parent_is_skipped_at_once(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit(a_diamond(fail_on_instance_failure=False))
    node = coordinator.node()
    coordinator.finish(node)
    *left, right = coordinator.claim(node, want=9)
    coordinator.report(node, right, exits(7))
    assert coordinator.task_states(job)["merge"] is SKIPPED

    coordinator.report_all(node, [told(ref, exits()) for ref in left])

    assert coordinator.task_states(job)["merge"] is SKIPPED
    assert coordinator.state(job) is JobState.FAILED


@pytest.mark.parametrize("tasks", [1, 7, 8, 9, 50])
def test_a_job_of_any_width_ends(coordinator: InMemoryCoordinator, tasks: int) -> None:
    job = coordinator.submit(a_job(*(a_task(f"t-{n}", instances=tasks) for n in range(tasks))))
    node = coordinator.node()
    while coordinator.finish(node, want=64):
        pass

    assert coordinator.state(job) is JobState.SUCCEEDED
