"""Stop, restart, delete and re-prioritise, in every order that matters."""

from datetime import timedelta

import pytest

from tests.support.builders import a_job, a_task, exits, holds, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.errors import Conflict, NotFound
from windlass_proto.model.events import Started, StoppedEarly
from windlass_proto.model.ids import DEFAULT_TENANT, JobId, TenantId
from windlass_proto.model.states import AttemptState, InstanceState, JobState, TaskState
from windlass_proto.model.status import InstanceCounts
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict

SOMEBODY_ELSE = TenantId("somebody-else")


# Stop


def test_a_job_that_never_started_stops_at_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a", instances=5), a_task("b", after=("a",))))

    coordinator.stop(job)

    status = coordinator.status(job)
    assert (status.state, status.reason, status.ended_at) == (
        JobState.STOPPED,
        "stopped by its user",
        coordinator.now,
    )
    assert coordinator.task_states(job) == {"a": TaskState.STOPPED, "b": TaskState.STOPPED}
    assert coordinator.counts(job, "a") == InstanceCounts(stopped=5)


def test_no_claim_follows_an_acknowledged_stop(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=100)))
    node = coordinator.node()
    coordinator.claim(node)

    coordinator.stop(job)

    assert coordinator.claim(node, want=100) == []


def test_a_job_is_stopping_until_its_live_attempt_reports(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=3)))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    coordinator.stop(job)

    assert coordinator.state(job) is JobState.STOPPING
    assert coordinator.instance(job).state is InstanceState.STOPPING
    assert coordinator.run(lambda tx: tx.stopping_attempts(node.key)) == [ref]

    coordinator.report(node, ref, exits(143, kind=None, stopped=True))

    assert coordinator.state(job) is JobState.STOPPED
    assert coordinator.counts(job) == InstanceCounts(stopped=3)
    assert coordinator.run(lambda tx: tx.stopping_attempts(node.key)) == []


def test_a_stop_committed_before_the_exit_decides(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    coordinator.stop(job)
    assert coordinator.report(node, ref, exits(0)) is EventVerdict.ACCEPTED

    assert coordinator.state(job) is JobState.STOPPED
    assert coordinator.attempt_states(job) == [AttemptState.STOPPED]


def test_an_exit_committed_before_the_stop_decides(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    coordinator.finish(node)

    with pytest.raises(Conflict, match=f"job {job} has ended already \\(SUCCEEDED\\)"):
        coordinator.stop(job)
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_an_upload_under_way_is_stopped_too(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits(finalizing=True))
    coordinator.stop(job)

    coordinator.report(node, ref, StoppedEarly())

    assert coordinator.attempt_states(job) == [AttemptState.STOPPED]
    assert coordinator.state(job) is JobState.STOPPED


def test_what_succeeded_before_a_stop_stays_succeeded(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a"), a_task("b", after=("a",), instances=2)))
    node = coordinator.node()
    coordinator.finish(node)
    first, _ = coordinator.claim(node, want=2)
    coordinator.report(node, first, exits())

    coordinator.stop(job)
    coordinator.report(node, node.held[-1], StoppedEarly())

    assert coordinator.task_states(job) == {"a": TaskState.SUCCEEDED, "b": TaskState.STOPPED}
    assert coordinator.counts(job, "b") == InstanceCounts(succeeded=1, stopped=1)


def test_what_waits_for_its_retry_stops_at_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=3)))
    coordinator.finish(coordinator.node(), code=7)

    coordinator.stop(job)

    assert coordinator.state(job) is JobState.STOPPED
    coordinator.later(timedelta(hours=1))
    assert coordinator.ready_due() is None
    assert coordinator.counts(job) == InstanceCounts(stopped=1)


def test_what_was_to_run_again_stops_at_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    coordinator.release(node, coordinator.claim_one(node))

    coordinator.stop(job)

    assert coordinator.state(job) is JobState.STOPPED


def test_a_stopping_attempt_that_its_node_gives_back_is_stopped(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.stop(job)

    assert coordinator.release(node, ref) == [True]

    assert coordinator.state(job) is JobState.STOPPED
    assert coordinator.instance(job).state is InstanceState.STOPPED


def test_a_stopping_attempt_whose_node_is_dead_is_not_tried_again(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    coordinator.stop(job)
    coordinator.mark_silent(node)

    coordinator.replace(node)

    assert coordinator.state(job) is JobState.STOPPED
    assert coordinator.attempt_states(job) == [AttemptState.LOST]
    assert coordinator.open_session(node, holds(ref)).verdicts[0].verdict is InventoryVerdict.KILL


def test_stopping_twice_is_stopping_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    coordinator.claim(coordinator.node())
    coordinator.stop(job)

    coordinator.stop(job)

    assert coordinator.state(job) is JobState.STOPPING
    assert coordinator.rows("SELECT count(*) FROM facts WHERE kind = 'job.stopping'") == [(1,)]


def test_a_job_that_is_stopping_because_it_failed_still_ends_as_failed(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node()
    first, second = coordinator.claim(node, want=2)
    coordinator.report(node, first, exits(7))

    coordinator.stop(job)
    coordinator.report(node, second, StoppedEarly())

    assert coordinator.state(job) is JobState.FAILED


# Restart


def test_a_restart_keeps_what_has_succeeded(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a"), a_task("b", after=("a",), instances=3)))
    node = coordinator.node()
    coordinator.finish(node)
    good, bad, _ = coordinator.claim(node, want=9)
    coordinator.report_all(node, [told(good, exits()), told(bad, exits(7))])
    coordinator.report(node, node.held[-1], StoppedEarly())
    assert coordinator.state(job) is JobState.FAILED

    coordinator.restart(job)

    status = coordinator.status(job)
    assert (status.state, status.generation, status.reason, status.ended_at) == (
        JobState.WAITING,
        2,
        "",
        None,
    )
    assert coordinator.task_states(job) == {"a": TaskState.SUCCEEDED, "b": TaskState.READY}
    assert coordinator.counts(job, "b") == InstanceCounts(ready=2, succeeded=1)
    again = coordinator.finish(node)
    assert [(ref.index, ref.attempt) for ref in again] == [(1, 2), (2, 2)]
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_a_restart_of_all_runs_everything_in_its_order_again(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a", instances=2), a_task("b", after=("a",))))
    node = coordinator.node()
    coordinator.finish(node)
    coordinator.finish(node)

    coordinator.restart(job, all_instances=True)

    assert coordinator.task_states(job) == {"a": TaskState.READY, "b": TaskState.WAITING}
    assert coordinator.counts(job, "b") == InstanceCounts(waiting=1)
    assert [(ref.index, ref.attempt) for ref in coordinator.finish(node)] == [(0, 2), (1, 2)]
    assert [(ref.index, ref.attempt) for ref in coordinator.finish(node)] == [(0, 2)]
    assert (coordinator.state(job), coordinator.status(job).generation) == (JobState.SUCCEEDED, 2)


def test_a_restart_goes_on_where_a_stop_left_off(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=5)))
    node = coordinator.node()
    coordinator.finish(node, want=2)
    coordinator.stop(job)

    coordinator.restart(job)

    assert coordinator.counts(job) == InstanceCounts(ready=3, succeeded=2)
    assert [ref.index for ref in coordinator.finish(node)] == [2, 3, 4]
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_skipped_tasks_get_their_turn_after_a_restart(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a"), a_task("b", after=("a",)), a_task("c", after=("b",))))
    node = coordinator.node()
    coordinator.finish(node, code=7)
    assert coordinator.task_states(job)["c"] is TaskState.SKIPPED

    coordinator.restart(job)
    for _ in range(3):
        coordinator.finish(node)

    assert coordinator.state(job) is JobState.SUCCEEDED


def test_a_restart_gives_the_retries_back(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=1)))
    node = coordinator.node()
    for _ in range(2):
        coordinator.finish(node, code=7)
        coordinator.later(timedelta(minutes=5))
        coordinator.ready_due()

    coordinator.restart(job)
    coordinator.finish(node, code=7)

    assert coordinator.instance(job).state is InstanceState.RETRY_WAIT
    assert coordinator.instance(job).user_failures == 1


def test_reports_of_an_earlier_generation_change_nothing(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.stop(job)
    coordinator.report(node, ref, StoppedEarly())
    coordinator.restart(job)

    assert coordinator.report(node, ref, exits(0)) is EventVerdict.DUPLICATE

    assert coordinator.state(job) is JobState.WAITING
    assert coordinator.counts(job) == InstanceCounts(ready=1)


def test_a_live_job_cannot_be_restarted(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()

    with pytest.raises(Conflict, match="is WAITING: stop it first"):
        coordinator.restart(job)


def test_a_succeeded_job_has_nothing_to_run_again_unless_all_is_asked_for(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    coordinator.finish(coordinator.node())

    with pytest.raises(Conflict, match="has succeeded: nothing to run again unless all"):
        coordinator.restart(job)
    coordinator.restart(job, all_instances=True)
    assert coordinator.state(job) is JobState.WAITING


# Delete


def test_a_deleted_job_is_not_there_any_more(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    coordinator.finish(coordinator.node())

    assert coordinator.delete(job)

    for verb in (coordinator.stop, coordinator.restart, coordinator.delete):
        with pytest.raises(NotFound, match=f"there is no job {job}"):
            verb(job)


def test_a_live_job_is_not_deleted(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()

    with pytest.raises(Conflict, match="is WAITING: stop it first"):
        coordinator.delete(job)
    assert coordinator.state(job) is JobState.WAITING


def test_a_job_may_be_stopped_and_deleted_in_one(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()

    assert coordinator.delete(job, stop_first=True)

    with pytest.raises(NotFound):
        coordinator.stop(job)


def test_a_running_job_goes_when_it_has_stopped(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    assert not coordinator.delete(job, stop_first=True)
    assert coordinator.state(job) is JobState.STOPPING
    assert coordinator.report(node, ref, exits()) is EventVerdict.ACCEPTED

    with pytest.raises(NotFound):
        coordinator.stop(job)
    assert coordinator.run(lambda tx: tx.attempt_log_facts(ref)) is None, "its node may delete all of it"


def test_a_job_that_was_stopping_already_goes_too(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.stop(job)

    assert not coordinator.delete(job, stop_first=True)
    coordinator.report(node, ref, StoppedEarly())

    assert coordinator.rows("SELECT deleted_at IS NOT NULL FROM jobs") == [(1,)]


# All of them


def test_the_priority_of_an_ended_job_means_nothing(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    coordinator.stop(job)

    with pytest.raises(Conflict, match="its priority means nothing any more"):
        coordinator.set_priority(job, 5)


def test_somebody_elses_job_is_no_job(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("default", tenant=SOMEBODY_ELSE)
    theirs = coordinator.submit(tenant=SOMEBODY_ELSE)
    refusals = []
    for job in (theirs, JobId("job-that-never-was")):
        with pytest.raises(NotFound) as refused:
            coordinator.stop(job, tenant=DEFAULT_TENANT)
        refusals.append(str(refused.value).replace(job, "JOB"))

    assert refusals == ["there is no job JOB"] * 2
