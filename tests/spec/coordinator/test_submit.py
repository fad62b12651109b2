"""A job is stored once, whole, or not at all."""

from dataclasses import replace

import pytest

from tests.support.builders import a_job, a_task, in_cluster
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.submit import Submitted
from windlass_proto.errors import Conflict, InvalidJob, Problem
from windlass_proto.model.ids import TenantId
from windlass_proto.model.states import JobState, TaskState
from windlass_proto.model.status import InstanceCounts

SOMEBODY_ELSE = TenantId("somebody-else")


def test_a_new_job_waits_with_its_first_tasks_ready(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a", instances=3), a_task("b", after=("a",), instances=2)))

    assert coordinator.state(job) is JobState.WAITING
    assert coordinator.task_states(job) == {"a": TaskState.READY, "b": TaskState.WAITING}
    assert coordinator.counts(job, "a") == InstanceCounts(ready=3)
    assert coordinator.counts(job, "b") == InstanceCounts(waiting=2)


def test_the_same_key_and_specification_give_the_same_job(coordinator: InMemoryCoordinator) -> None:
    first = coordinator.submit_again(key="key")
    again = coordinator.submit_again(key="key")

    assert (first.already_existed, again) == (
        False,
        Submitted(job_id=first.job_id, already_existed=True),
    )
    assert coordinator.rows("SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize(
    "other",
    [
        a_job(name="other"),
        a_job(priority=1),
        a_job(description="other"),
        a_job(fail_on_instance_failure=False),
        a_job(a_task(instances=2)),
        a_job(a_task(), a_task("other")),
    ],
    ids=["name", "priority", "description", "failure policy", "a task's field", "one task more"],
)
def test_the_same_key_with_another_specification_is_a_conflict(
    coordinator: InMemoryCoordinator, other: object
) -> None:
    job = coordinator.submit(key="key")

    with pytest.raises(Conflict, match=f"'key' was used for job {job}"):
        coordinator.submit(other, key="key")  # type: ignore[arg-type]  # a JobSpec, see above
    assert coordinator.rows("SELECT count(*) FROM jobs") == [(1,)]


def test_without_a_key_every_submit_is_a_new_job(coordinator: InMemoryCoordinator) -> None:
    assert coordinator.submit() != coordinator.submit()


def test_the_same_key_of_another_tenant_is_another_job(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("default", tenant=SOMEBODY_ELSE)

    assert coordinator.submit(key="key") != coordinator.submit(key="key", tenant=SOMEBODY_ELSE)


def test_an_unknown_cluster_is_named_with_the_nearest_one(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("gpu-large")
    tasks = (in_cluster(a_task("a"), "gpu-larg"), in_cluster(a_task("b"), "zzz"), a_task("c"))

    with pytest.raises(InvalidJob) as refused:
        coordinator.submit(a_job(*tasks), key="key")

    assert refused.value.problems == (
        Problem(path="tasks.a.cluster", message="there is no cluster 'gpu-larg'; did you mean 'gpu-large'?"),
        Problem(
            path="tasks.b.cluster", message="there is no cluster 'zzz'; clusters here: default, gpu-large"
        ),
    )
    assert coordinator.rows("SELECT count(*) FROM jobs") == [(0,)]


def test_a_refused_submit_does_not_use_up_its_key(coordinator: InMemoryCoordinator) -> None:
    spec = a_job(in_cluster(a_task(), "later"))
    with pytest.raises(InvalidJob):
        coordinator.submit(spec, key="key")

    coordinator.create_cluster("later")

    assert not coordinator.submit_again(spec, key="key").already_existed


def test_another_tenants_cluster_is_an_unknown_one(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("theirs", tenant=SOMEBODY_ELSE)

    with pytest.raises(InvalidJob, match="there is no cluster 'theirs'; clusters here: default"):
        coordinator.submit(a_job(in_cluster(a_task(), "theirs")))


def test_a_million_instances_are_one_row(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(replace(a_task(), instances=1_000_000)))

    assert coordinator.counts(job) == InstanceCounts(ready=1_000_000)
    assert coordinator.rows("SELECT count(*) FROM tasks") == [(1,)]
    assert coordinator.rows("SELECT count(*) FROM instances") == [(0,)]
