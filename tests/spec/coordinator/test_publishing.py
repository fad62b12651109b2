"""Who may publish the outputs of an instance: the attempt that holds it, and nobody else (I12)."""

from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.publishing import CommitVerdict
from windlass_coordinator.engine.publish_outputs import Commit
from windlass_proto.errors import SessionLost
from windlass_proto.model.events import Finalized, FinalizeFailed, Started
from windlass_proto.model.ids import AttemptRef, Fence, JobId

GRANTED = Commit(verdict=CommitVerdict(granted=True))
ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def node(coordinator: InMemoryCoordinator) -> Machine:
    return coordinator.node()


@pytest.fixture
def job(coordinator: InMemoryCoordinator) -> JobId:
    return coordinator.submit(a_job(a_task(max_retries=3)))


def finalizing(coordinator: InMemoryCoordinator, node: Machine) -> AttemptRef:
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started(), exits(finalizing=True))
    return ref


def recorded(coordinator: InMemoryCoordinator) -> list[tuple[object, ...]]:
    return coordinator.rows("SELECT attempt, manifest_digest, files, bytes FROM published")


def refusal(commit: Commit) -> str:
    assert not commit.verdict.granted
    return commit.verdict.reason


def test_an_attempt_that_has_succeeded_may_publish_and_is_recorded(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    assert coordinator.commit_outputs(node, ref, digest=ONE) == GRANTED
    assert recorded(coordinator) == [(1, ONE, 1, 2)]


def test_asking_again_gives_the_same_answer_and_may_name_another_manifest(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    assert [coordinator.commit_outputs(node, ref, digest=digest) for digest in (ONE, ONE, OTHER)] == [
        GRANTED
    ] * 3
    assert recorded(coordinator) == [(1, OTHER, 1, 2)]


def test_an_attempt_whose_exit_is_on_its_way_asks_again(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    assert coordinator.commit_outputs(node, ref).verdict.not_yet
    assert recorded(coordinator) == []


def test_what_a_failed_command_left_is_published_before_its_exit_is_told(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    assert coordinator.commit_outputs(node, ref, of_failed_command=True) == GRANTED


def test_the_next_attempt_takes_over_from_one_that_failed(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    first = finalizing(coordinator, node)
    coordinator.commit_outputs(node, first, digest=ONE)
    coordinator.report(node, first, FinalizeFailed(reason="no bucket"))
    coordinator.later(timedelta(hours=1))
    coordinator.ready_due()
    second = finalizing(coordinator, node)
    commit = coordinator.commit_outputs(node, second, digest=OTHER)
    assert (commit.verdict.granted, commit.supersedes) == (True, True)
    assert recorded(coordinator) == [(2, OTHER, 1, 2)]
    assert "not this attempt's" in refusal(coordinator.commit_outputs(node, first, digest=ONE))
    assert recorded(coordinator) == [(2, OTHER, 1, 2)]


def test_an_attempt_that_was_lost_with_its_silent_node_may_not_publish(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    coordinator.mark_silent(node)
    with pytest.raises(SessionLost):
        coordinator.commit_outputs(node, ref)
    coordinator.replace(node)
    coordinator.open_session(node)
    assert "not this attempt's" in refusal(coordinator.commit_outputs(node, ref))


def test_a_stop_that_was_acknowledged_comes_first(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    coordinator.stop(job)
    assert "STOPPING" in refusal(coordinator.commit_outputs(node, ref))


def test_an_attempt_that_has_ended_may_not_publish(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    coordinator.report_all(node, [told(ref, Finalized())])
    assert "SUCCEEDED" in refusal(coordinator.commit_outputs(node, ref))


def test_a_node_may_not_publish_for_another_one(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    other = coordinator.node()
    assert "not on record" in refusal(coordinator.commit_outputs(other, ref))


@pytest.mark.parametrize("change", [-1, 1])
def test_another_fence_is_refused(
    change: int, coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    forged = AttemptRef(
        task_key=ref.task_key, index=ref.index, attempt=ref.attempt, fence=Fence(ref.fence + change)
    )
    assert "not this attempt's" in refusal(coordinator.commit_outputs(node, forged))


def test_a_note_of_the_upload_is_the_reason_of_the_success(
    coordinator: InMemoryCoordinator, node: Machine, job: JobId
) -> None:
    ref = finalizing(coordinator, node)
    coordinator.report(node, ref, Finalized(note="log a.log was not there"))
    assert coordinator.instance(job).attempts[0].reason == "log a.log was not there"
