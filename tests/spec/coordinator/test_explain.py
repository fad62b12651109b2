"""What a user is told of a job that waits."""

import asyncio

from tests.support.builders import a_job, a_task, in_cluster, needing
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.explain import explain, is_to_explain
from windlass_proto.model.events import Started
from windlass_proto.model.ids import DEFAULT_TENANT, JobId
from windlass_proto.model.status import JobStatus


def looked_at(coordinator: InMemoryCoordinator, job: JobId) -> JobStatus:
    status = coordinator.status(job)
    assert is_to_explain(status)
    waiting = coordinator.store.read(lambda queries: queries.waiting_tasks(job, tenant=DEFAULT_TENANT))
    return explain(status, asyncio.run(waiting))


def reasons(status: JobStatus) -> dict[str, str]:
    return {task.name: task.reason for task in status.tasks}


def test_each_task_that_no_node_can_take_says_so_and_the_job_says_the_first(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.create_cluster("empty")
    coordinator.node(name="a", gpus=1)
    coordinator.node(name="b", gpus=2)
    large, elsewhere = needing(a_task("large"), gpus=4), in_cluster(a_task("elsewhere"), "empty")
    job = coordinator.submit(a_job(a_task("fits"), large, elsewhere, a_task("later", after=["large"])))

    status = looked_at(coordinator, job)

    assert reasons(status) == {
        "fits": "",
        "large": "waits: no node of cluster default has 4 GPUs (largest: 2)",
        "elsewhere": "waits: no node of cluster empty takes work now",
        "later": "",
    }
    assert status.reason == "large waits: no node of cluster default has 4 GPUs (largest: 2)"


def test_a_job_of_which_something_runs_has_no_reason_itself(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node(name="a")
    job = coordinator.submit(a_job(a_task("fits"), needing(a_task("large"), gpus=4)))
    coordinator.report(node, coordinator.claim_one(node), Started())

    status = looked_at(coordinator, job)

    assert (status.reason, bool(reasons(status)["large"])) == ("", True)


def test_a_node_that_takes_no_work_counts_for_nothing(coordinator: InMemoryCoordinator) -> None:
    machine = coordinator.node(name="a", gpus=4)
    job = coordinator.submit(a_job(needing(a_task(), gpus=4)))
    assert looked_at(coordinator, job).reason == ""

    coordinator.mark_silent(machine)

    assert reasons(looked_at(coordinator, job)) == {
        "task": "waits: no node of cluster default takes work now"
    }


def test_a_job_that_waits_for_nothing_is_not_explained(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node(name="a")
    job = coordinator.submit(a_job(a_task()))
    coordinator.finish(node)

    assert not is_to_explain(coordinator.status(job))
