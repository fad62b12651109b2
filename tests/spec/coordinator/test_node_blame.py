"""Nodes that are quarantined or avoided for what went wrong on them, and work that takes nodes down."""

from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, told
from tests.support.coordinator import InMemoryCoordinator
from tests.support.node_looks import back_off_ends, kinds, state_of
from windlass_proto.model.events import LostOnNode, PrepareFailed, Started
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.model.states import InstanceState, JobState

NODE_LOST = LostOnNode(kind=FailureKind.INFRA_NODE_LOST, reason="the machine was restarted")
KEEPER_LOST = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed")
NOT_PREPARED = PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason="disk full")


# -- quarantine


def fail_to_prepare(coordinator: InMemoryCoordinator, node: Machine, *, jobs: int) -> list[JobId]:
    submitted = [coordinator.submit() for _ in range(jobs)]
    for _ in submitted:
        coordinator.report(node, coordinator.claim_one(node), NOT_PREPARED)
    return submitted


def test_a_node_that_cannot_prepare_five_jobs_in_a_row_is_quarantined(
    coordinator: InMemoryCoordinator,
) -> None:
    node = coordinator.node()
    fail_to_prepare(coordinator, node, jobs=4)
    assert state_of(coordinator, node) == "READY"

    fail_to_prepare(coordinator, node, jobs=1)

    assert state_of(coordinator, node) == "QUARANTINED"
    coordinator.submit()
    assert coordinator.claim(node) == []
    assert kinds(coordinator, node)[-1] == "node.quarantined"
    coordinator.resume(node)
    assert len(coordinator.claim(node)) == 1


def test_one_job_that_cannot_be_prepared_anywhere_quarantines_nobody(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit(a_job(a_task(instances=20)))
    node = coordinator.node(slots=20)
    refs = coordinator.claim(node, want=20)
    coordinator.report_all(node, [told(ref, NOT_PREPARED) for ref in refs])
    assert state_of(coordinator, node) == "READY"


def test_a_command_that_starts_clears_a_nodes_name(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    fail_to_prepare(coordinator, node, jobs=4)
    coordinator.submit()
    coordinator.report(node, coordinator.claim_one(node), Started())
    fail_to_prepare(coordinator, node, jobs=4)
    assert state_of(coordinator, node) == "READY"


# -- poison


def lose_with(coordinator: InMemoryCoordinator, node: Machine, loss: LostOnNode) -> AttemptRef:
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, loss)
    back_off_ends(coordinator)
    back_off_ends(coordinator)
    return ref


@pytest.mark.parametrize("loss", [NODE_LOST, KEEPER_LOST])
def test_an_instance_that_takes_down_three_nodes_is_poison(
    coordinator: InMemoryCoordinator, loss: LostOnNode
) -> None:
    job = coordinator.submit()
    for _ in range(3):
        lose_with(coordinator, coordinator.node(), loss)

    instance = coordinator.instance(job)
    assert coordinator.state(job) is JobState.FAILED
    assert [attempt.failure for attempt in instance.attempts] == [loss.kind, loss.kind, FailureKind.POISON]
    assert (
        instance.attempts[-1].reason == f"3 nodes were lost while they ran it, this one because {loss.reason}"
    )


def test_one_bad_node_does_not_make_an_instance_poison(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    for _ in range(4):
        lose_with(coordinator, node, KEEPER_LOST)
    assert coordinator.instance(job).state is InstanceState.READY


def test_a_node_that_is_taken_away_says_nothing_about_what_it_ran(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    for _ in range(4):
        lose_with(coordinator, coordinator.node(), LostOnNode(kind=FailureKind.PREEMPTED, reason="spot"))
    assert coordinator.instance(job).state is InstanceState.READY


def test_what_took_nodes_down_before_a_restart_is_forgiven(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    for _ in range(3):
        lose_with(coordinator, coordinator.node(), NODE_LOST)
    assert coordinator.state(job) is JobState.FAILED
    coordinator.restart(job)

    taken = LostOnNode(kind=FailureKind.PREEMPTED, reason="spot")
    for loss in (taken, taken, NODE_LOST):
        lose_with(coordinator, coordinator.node(), loss)

    assert coordinator.instance(job).state is InstanceState.READY


# -- another node


def test_what_was_lost_on_a_node_is_tried_on_another_one_first(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    bad, good = coordinator.node(), coordinator.node()
    coordinator.report(bad, coordinator.claim_one(bad), KEEPER_LOST)
    back_off_ends(coordinator)

    assert coordinator.claim(bad) == []
    assert len(coordinator.claim(good)) == 1


def test_what_avoids_a_node_keeps_nothing_else_from_it(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=2)))
    bad, busy = coordinator.node(slots=2), coordinator.node()
    for ref in coordinator.claim(bad, want=2):
        coordinator.report(bad, ref, KEEPER_LOST)
    back_off_ends(coordinator)
    assert coordinator.claim(bad, want=2) == []
    behind = coordinator.submit(a_job(a_task(instances=2)))

    assert len(coordinator.claim(bad)) == 1
    assert len(coordinator.claim(bad, want=2)) == 1
    assert coordinator.state(behind) is JobState.RUNNING
    assert len(coordinator.claim(busy, want=2)) == 2


def test_when_no_other_node_takes_it_the_same_one_gets_it_after_a_while(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit()
    bad, _ = coordinator.node(), coordinator.node()
    coordinator.report(bad, coordinator.claim_one(bad), KEEPER_LOST)
    coordinator.later(timedelta(minutes=5))

    assert coordinator.ready_due() == coordinator.now + timedelta(seconds=30)
    assert coordinator.claim(bad) == []
    coordinator.later(timedelta(seconds=30))
    assert coordinator.ready_due() is None
    assert len(coordinator.claim(bad)) == 1


def test_a_lonely_node_gets_it_at_once(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    only = coordinator.node()
    coordinator.report(only, coordinator.claim_one(only), KEEPER_LOST)
    back_off_ends(coordinator)
    assert len(coordinator.claim(only)) == 1


def test_a_failure_of_the_users_own_may_run_where_it_ran(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(max_retries=1)))
    node, _ = coordinator.node(), coordinator.node()
    coordinator.report(node, coordinator.claim_one(node), exits(7))
    back_off_ends(coordinator)
    assert len(coordinator.claim(node)) == 1
