"""Nodes that are drained, resumed and named."""

from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, holds
from tests.support.coordinator import InMemoryCoordinator
from tests.support.node_looks import back_off_ends, kinds, state_of
from windlass_proto.errors import Conflict, NotFound, SessionLost
from windlass_proto.model.events import Started
from windlass_proto.model.ids import DEFAULT_TENANT, NodeId, TenantId
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, JobState
from windlass_proto.model.verdicts import InventoryVerdict


def test_a_draining_node_finishes_what_it_has_and_gets_nothing_new(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node(slots=2)
    ref = coordinator.claim_one(node)

    coordinator.drain(node)

    assert state_of(coordinator, node) == "DRAINING"
    assert coordinator.claim(node) == []
    assert coordinator.report(node, ref, exits()) == "ACCEPTED"
    coordinator.look_at_drain(node)
    assert state_of(coordinator, node) == "DRAINED"
    assert kinds(coordinator, node)[-2:] == ["node.draining", "node.drained"]


def test_an_idle_node_is_drained_at_once(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    coordinator.drain(node)
    assert state_of(coordinator, node) == "DRAINED"


def test_a_resumed_node_takes_work_again(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    coordinator.drain(node)
    coordinator.resume(node)
    assert state_of(coordinator, node) == "READY"
    assert len(coordinator.claim(node)) == 1


def test_a_drain_outlasts_the_nodes_session(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    coordinator.drain(node)
    coordinator.mark_silent(node)

    coordinator.open_session(node)
    coordinator.look_at_drain(node)

    assert state_of(coordinator, node) == "DRAINED"
    assert coordinator.claim(node) == []


def test_what_still_runs_when_the_time_of_a_drain_is_over_goes_elsewhere_at_no_cost(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node, other = coordinator.node(slots=2), coordinator.node(slots=2)
    running, leased = coordinator.claim(node, want=2)
    coordinator.report(node, running, Started())

    coordinator.drain(node, within=timedelta(minutes=10))
    coordinator.look_at_drain(node)
    assert coordinator.attempt_states(job, 0) == [AttemptState.RUNNING]
    coordinator.later(timedelta(minutes=10))
    coordinator.look_at_drain(node)

    assert state_of(coordinator, node) == "DRAINED"
    assert coordinator.attempt_states(job, 0) == [AttemptState.LOST]
    assert coordinator.attempt_states(job, 1) == [AttemptState.RELEASED]
    with pytest.raises(SessionLost):
        coordinator.report(node, running, exits())
    opened = coordinator.open_session(node, holds(running), holds(leased))
    assert [item.verdict for item in opened.verdicts] == [InventoryVerdict.KILL] * 2
    back_off_ends(coordinator)
    assert len(coordinator.finish(other)) == 2
    assert coordinator.state(job) is JobState.SUCCEEDED
    assert coordinator.instance(job, 0).user_failures == 0


def test_what_must_not_overlap_goes_elsewhere_when_the_drained_node_has_ended_it(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit(a_job(a_task(disconnect=DisconnectPolicy.NO_OVERLAP)))
    node, other = coordinator.node(), coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    coordinator.drain(node, within=timedelta(minutes=10))
    assert coordinator.to_end(node) == []

    coordinator.later(timedelta(minutes=10))
    coordinator.look_at_drain(node)

    assert coordinator.to_end(node) == [ref]
    assert coordinator.attempt_states(job, 0) == [AttemptState.RUNNING]
    assert coordinator.claim(other) == []
    coordinator.report(node, ref, exits(143, stopped=True))
    assert coordinator.attempt_states(job, 0) == [AttemptState.LOST]
    coordinator.look_at_drain(node)
    assert state_of(coordinator, node) == "DRAINED"
    back_off_ends(coordinator)
    assert len(coordinator.finish(other)) == 1
    assert coordinator.state(job) is JobState.SUCCEEDED
    assert coordinator.instance(job, 0).user_failures == 0


def test_a_drain_that_ends_while_a_reply_is_lost_does_not_shut_the_node_out(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit()
    machine = coordinator.node()
    ref = coordinator.claim_one(machine)
    coordinator.drain(machine, within=timedelta(0))
    heard = machine.nonce
    coordinator.open_session(machine, holds(ref))
    coordinator.look_at_drain(machine)

    coordinator.open_session(machine, nonce=heard)

    assert coordinator.claim(machine) == []


def test_only_nodes_of_ones_own_that_are_there_can_be_drained(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node(name="twin")
    coordinator.node(name="twin")
    with pytest.raises(NotFound, match="no node twin, or more than one"):
        coordinator.drain(Machine(key=node.key, node_id=NodeId("twin"), facts=node.facts))
    with pytest.raises(NotFound):
        coordinator.drain(node, tenant=TenantId("other"))
    coordinator.leave(node)
    with pytest.raises(Conflict, match="is gone"):
        coordinator.drain(node)


def test_a_node_is_found_by_a_name_that_only_one_has(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node(name="render-07")
    found = coordinator.run(lambda tx: tx.find_node(NodeId("render-07"), tenant=DEFAULT_TENANT))
    assert found is not None
    assert found.node_key == node.key
