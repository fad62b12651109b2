"""Each change of state is a fact, once and in order, in the transaction of the change (invariant I19)."""

import json

from tests.support.builders import a_job, a_task
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.model.ids import JobId


def facts_of(coordinator: InMemoryCoordinator, job: JobId) -> list[str]:
    """What became known of a job: `job.started`, or `task.started split` for what concerns tasks."""
    names = dict(coordinator.rows("SELECT task_key, name FROM tasks"))
    told = []
    for kind, payload in coordinator.rows(
        "SELECT f.kind, f.payload FROM facts f JOIN jobs j USING (job_key) WHERE j.job_id = ? ORDER BY f.seq",
        job,
    ):
        tasks = json.loads(payload).get("tasks") if payload else None
        told.append(f"{kind} {' '.join(sorted(names[key] for key in tasks))}" if tasks else kind)
    return told


def test_a_chain_that_succeeds_tells_of_each_step_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("split"), a_task("merge", after=["split"])))
    node = coordinator.node()
    coordinator.finish(node)
    coordinator.finish(node)

    assert facts_of(coordinator, job) == [
        "job.submitted",
        "instances.claimed",
        "task.started split",
        "job.started",
        "instances.ended",
        "task.succeeded split",
        "task.ready merge",
        "instances.claimed",
        "task.started merge",
        "instances.ended",
        "task.succeeded merge",
        "job.succeeded",
    ]


def test_a_failure_tells_of_the_tasks_that_it_ends(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("bad"), a_task("idle"), a_task("later", after=["bad"])))
    coordinator.finish(coordinator.node(), code=1, want=1)

    assert facts_of(coordinator, job)[4:] == [
        "instances.ended",
        "task.failed bad",
        "task.skipped later",
        "job.stopping",
        "task.stopped idle",
        "job.failed",
    ]


def test_a_stop_tells_of_the_tasks_that_it_ends(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("first"), a_task("second", after=["first"])))
    coordinator.stop(job)

    assert facts_of(coordinator, job) == [
        "job.submitted",
        "job.stopping",
        "task.stopped first second",
        "job.stopped",
    ]
