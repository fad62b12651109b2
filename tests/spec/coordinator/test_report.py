"""What a report changes, and what it does not."""

from datetime import timedelta

import pytest

from tests.support.builders import a_job, a_task, exits, holds, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.errors import SessionLost
from windlass_proto.model.events import (
    Finalized,
    FinalizeFailed,
    Happening,
    LostOnNode,
    PrepareFailed,
    Preparing,
    Started,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.states import AttemptState, InstanceState, JobState
from windlass_proto.model.status import InstanceCounts
from windlass_proto.model.verdicts import EventVerdict

ACCEPTED, DUPLICATE, SUPERSEDED, CONFLICT, UNKNOWN = EventVerdict


def everything(coordinator: InMemoryCoordinator) -> list[object]:
    """All rows that a report could change."""
    tables = ("jobs", "tasks", "instances", "attempts", "ready_again")
    return [coordinator.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def test_a_result_is_recorded_with_all_that_the_keeper_measured(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.later(timedelta(seconds=5))

    measured = exits(
        7,
        reason="exit code 7",
        ran_for_us=2_000_000,
        user_cpu_us=5,
        system_cpu_us=6,
        peak_memory_bytes=7,
        stdout_end=8,
        stderr_end=9,
    )
    assert coordinator.report(node, ref, measured) is ACCEPTED

    (attempt,) = coordinator.instance(job).attempts
    assert (attempt.state, attempt.failure, attempt.exit_code, attempt.exit_signal, attempt.reason) == (
        AttemptState.FAILED,
        FailureKind.USER_EXIT,
        7,
        None,
        "exit code 7",
    )
    assert (attempt.peak_memory_bytes, attempt.stdout_bytes, attempt.stderr_bytes) == (7, 8, 9)
    assert (attempt.user_cpu, attempt.system_cpu) == (timedelta(microseconds=5), timedelta(microseconds=6))
    assert attempt.ended_at == coordinator.now
    assert attempt.started_at == coordinator.now - timedelta(seconds=2)


def test_nothing_starts_before_it_was_leased_whatever_a_node_measured(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    coordinator.report(node, ref, exits(ran_for_us=2**62))

    assert coordinator.instance(job).attempts[0].started_at == coordinator.now


def test_states_follow_the_events(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    seen = coordinator.attempt_states(job)
    steps: list[Happening] = [Preparing(), Started(), exits(finalizing=True), Finalized()]
    for what in steps:
        assert coordinator.report(node, ref, what) is ACCEPTED
        seen += coordinator.attempt_states(job)

    assert seen == ["LEASED", "PREPARING", "RUNNING", "FINALIZING", "SUCCEEDED"]
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_several_events_of_one_attempt_may_come_in_one_report(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    steps: list[Happening] = [Preparing(), Started(), exits(finalizing=True, stdout_end=5), Finalized()]

    verdicts = coordinator.report_all(node, [told(ref, what) for what in steps])

    assert verdicts == [ACCEPTED] * 4
    (attempt,) = coordinator.instance(job).attempts
    assert (attempt.state, attempt.exit_code, attempt.stdout_bytes) == (AttemptState.SUCCEEDED, 0, 5)


def test_progress_in_one_report_ends_at_the_latest_event(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    verdicts = coordinator.report_all(node, [told(ref, Started()), told(ref, Preparing())])

    assert verdicts == [ACCEPTED, DUPLICATE]
    assert coordinator.attempt_states(job) == [AttemptState.RUNNING]


def test_an_exit_told_twice_in_one_report_is_one_result(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=1)))
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    verdicts = coordinator.report_all(node, [told(ref, exits(7)), told(ref, exits(7)), told(ref, exits(0))])

    assert verdicts == [ACCEPTED, DUPLICATE, CONFLICT]
    assert coordinator.instance(job).user_failures == 1


def test_a_report_told_again_changes_nothing(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task("a", instances=12), a_task("b", after=("a",))))
    node = coordinator.node()
    events = [told(ref, exits()) for ref in coordinator.claim(node, want=12)]
    assert set(coordinator.report_all(node, events)) == {ACCEPTED}
    before = everything(coordinator)

    assert set(coordinator.report_all(node, events)) == {DUPLICATE}
    assert everything(coordinator) == before


def test_events_that_come_late_are_ignored(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits())
    before = everything(coordinator)

    assert coordinator.report(node, ref, Started()) is DUPLICATE
    assert coordinator.report(node, ref, Preparing()) is DUPLICATE
    assert everything(coordinator) == before
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_a_contradiction_changes_nothing_and_is_put_on_record(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits(0))
    before = everything(coordinator)

    assert coordinator.report(node, ref, exits(7)) is CONFLICT

    assert everything(coordinator) == before
    assert coordinator.rows("SELECT count(*) FROM facts WHERE kind = 'attempt.conflict'") == [(1,)]


def test_a_success_needs_an_exit_on_record(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    assert coordinator.report(node, ref, Finalized()) is ACCEPTED
    assert coordinator.attempt_states(job) == [AttemptState.LOST]
    assert coordinator.instance(job).user_failures == 0


def test_a_revoked_attempt_is_superseded_though_it_ended_well(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    old = coordinator.claim_one(node)
    coordinator.release(node, old)
    new = coordinator.claim_one(node)
    before = everything(coordinator)

    assert coordinator.report(node, old, exits()) is SUPERSEDED

    assert everything(coordinator) == before
    assert coordinator.report(node, new, exits()) is ACCEPTED
    assert coordinator.attempt_states(job) == ["RELEASED", "SUCCEEDED"]


def test_a_made_up_fence_changes_nothing(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    before = everything(coordinator)
    for fence in (ref.fence - 1, ref.fence + 1):
        forged = AttemptRef(task_key=ref.task_key, index=0, attempt=1, fence=Fence(fence))
        assert coordinator.report(node, forged, exits()) is SUPERSEDED

    assert everything(coordinator) == before


def test_a_node_cannot_touch_another_nodes_attempt(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    owner, other = coordinator.node(), coordinator.node()
    ref = coordinator.claim_one(owner)
    before = everything(coordinator)

    assert coordinator.report(other, ref, exits()) is UNKNOWN
    assert coordinator.release(other, ref) == [False]

    assert everything(coordinator) == before
    assert coordinator.report(owner, ref, exits()) is ACCEPTED


@pytest.mark.parametrize(("task", "index", "attempt"), [(99, 0, 1), (1, 99, 1), (1, 0, 99)])
def test_an_attempt_that_never_was_is_unknown(
    coordinator: InMemoryCoordinator, task: int, index: int, attempt: int
) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    stranger = AttemptRef(task_key=TaskKey(task), index=index, attempt=attempt, fence=ref.fence)

    assert coordinator.report(node, stranger, exits()) is UNKNOWN


def test_one_report_may_tell_of_many_tasks_and_have_many_verdicts(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task("a", instances=30), a_task("b"), fail_on_instance_failure=False))
    node = coordinator.node()
    refs = coordinator.claim(node, want=31)
    coordinator.report(node, refs[3], exits())
    stranger = AttemptRef(task_key=TaskKey(99), index=0, attempt=1, fence=refs[0].fence)

    verdicts = coordinator.report_all(
        node,
        [
            told(refs[30], exits(7)),
            told(refs[3], exits()),
            told(refs[29], exits()),
            told(stranger, exits()),
            told(refs[0], Started()),
            told(refs[3], exits(7)),
        ],
    )

    assert verdicts == [ACCEPTED, DUPLICATE, ACCEPTED, UNKNOWN, ACCEPTED, CONFLICT]


def test_a_session_that_is_not_the_nodes_newest_may_not_report(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    epoch, nonce = node.epoch, node.nonce
    coordinator.open_session(node, holds(ref))
    before = everything(coordinator)

    for wrong in [(epoch, nonce), (node.epoch, nonce), (epoch, node.nonce)]:
        node.epoch, node.nonce = wrong
        with pytest.raises(SessionLost, match="not the node's current one"):
            coordinator.report(node, ref, exits())
    assert everything(coordinator) == before


# Retries


def test_a_failure_of_the_users_is_tried_again_after_a_pause(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=1)))
    node = coordinator.node()
    coordinator.finish(node, code=7)

    assert coordinator.counts(job) == InstanceCounts(retry_wait=1)
    assert coordinator.claim(node) == []
    assert coordinator.ready_due() == coordinator.now + timedelta(seconds=0.75)
    coordinator.later(timedelta(seconds=0.75))
    assert coordinator.ready_due() is None
    assert coordinator.counts(job) == InstanceCounts(ready=1)

    coordinator.finish(node, code=0)

    assert coordinator.state(job) is JobState.SUCCEEDED
    assert coordinator.attempt_states(job) == ["FAILED", "SUCCEEDED"]


def test_a_job_fails_when_its_retries_are_spent(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=2)))
    node = coordinator.node()
    for _ in range(3):
        coordinator.finish(node, code=7)
        coordinator.later(timedelta(minutes=5))
        coordinator.ready_due()

    assert coordinator.state(job) is JobState.FAILED
    assert coordinator.attempt_states(job) == ["FAILED"] * 3
    assert coordinator.instance(job).user_failures == 3
    assert coordinator.status(job).reason == "an instance of task task failed"


def test_back_offs_end_each_in_its_own_time(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=2, max_retries=1)))
    node = coordinator.node()
    first, second = coordinator.claim(node, want=2)
    coordinator.report(node, first, exits(7))
    coordinator.later(timedelta(seconds=0.5))
    coordinator.report(node, second, exits(7))

    coordinator.later(timedelta(seconds=0.25))
    assert coordinator.ready_due() == coordinator.now + timedelta(seconds=0.5)
    assert [ref.index for ref in coordinator.claim(node, want=9)] == [0]
    coordinator.later(timedelta(seconds=0.5))
    assert coordinator.ready_due() is None
    assert [ref.index for ref in coordinator.claim(node, want=9)] == [1]


@pytest.mark.parametrize(
    "loss",
    [
        LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed"),
        LostOnNode(kind=FailureKind.USER_EXIT, reason="an agent that does not know better"),
        PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason="disk full"),
    ],
)
def test_what_the_infrastructure_breaks_does_not_spend_the_users_retries(
    coordinator: InMemoryCoordinator, loss: Happening
) -> None:
    job = coordinator.submit(a_job(a_task(max_retries=0)))
    node = coordinator.node()
    coordinator.report(node, coordinator.claim_one(node), loss)

    instance = coordinator.instance(job)
    assert (instance.state, instance.user_failures, instance.infra_failures) == (
        InstanceState.RETRY_WAIT,
        0,
        1,
    )


def test_the_infrastructure_may_not_fail_for_ever(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    for _ in range(11):
        lost = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed")
        coordinator.report(node, coordinator.claim_one(node), lost)
        coordinator.later(timedelta(minutes=5))
        coordinator.ready_due()

    assert coordinator.state(job) is JobState.FAILED
    assert coordinator.instance(job).infra_failures == 11


def test_a_released_attempt_spends_nothing_and_is_ready_at_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    assert coordinator.release(node, ref, ref) == [True, True]

    instance = coordinator.instance(job)
    assert (instance.state, instance.user_failures, instance.infra_failures) == (InstanceState.READY, 0, 0)
    assert coordinator.claim_one(node).attempt == 2


def test_what_was_only_prepared_can_be_given_back(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Preparing())

    assert coordinator.release(node, ref) == [True]

    instance = coordinator.instance(job)
    assert (instance.state, instance.user_failures, instance.infra_failures) == (InstanceState.READY, 0, 0)


def test_what_has_started_cannot_be_released(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())

    assert coordinator.release(node, ref) == [False]


def test_a_failed_upload_is_the_users_failure(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits(finalizing=True))
    coordinator.report(node, ref, FinalizeFailed(reason="no such bucket"))

    (attempt,) = coordinator.instance(job).attempts
    assert (attempt.state, attempt.failure, attempt.exit_code, attempt.reason) == (
        AttemptState.FAILED,
        FailureKind.OUTPUT,
        0,
        "no such bucket",
    )
