"""Nodes that are drained, quarantined, avoided, and asked what they have."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, holds, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.nodes import note_trouble
from windlass_coordinator.engine.session import current_node
from windlass_coordinator.stores.base import Transaction
from windlass_proto.errors import Conflict, NotFound, SessionLost
from windlass_proto.model.events import Exited, LostOnNode, PrepareFailed, Started
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef, JobId, NodeId, TenantId
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, InstanceState, JobState
from windlass_proto.model.verdicts import InventoryVerdict

NODE_LOST = LostOnNode(kind=FailureKind.INFRA_NODE_LOST, reason="the machine was restarted")
KEEPER_LOST = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed")
NOT_PREPARED = PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason="disk full")


@pytest.fixture
def coordinator() -> Iterator[InMemoryCoordinator]:
    with InMemoryCoordinator() as made:
        yield made


def state_of(coordinator: InMemoryCoordinator, node: Machine) -> str:
    return str(coordinator.rows("SELECT state FROM nodes WHERE node_key = ?", node.key)[0][0])


def kinds(coordinator: InMemoryCoordinator, node: Machine) -> list[str]:
    rows = coordinator.rows("SELECT kind FROM facts WHERE node_key = ? ORDER BY seq", node.key)
    return [row[0] for row in rows if row[0].startswith("node.")]


def back_off_ends(coordinator: InMemoryCoordinator) -> None:
    coordinator.later(timedelta(minutes=5))
    coordinator.ready_due()


# -- drain


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


# -- reboot, audit, logs of what was lost


def test_after_a_reboot_only_an_exit_record_is_believed(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node(slots=2)
    running, ended = coordinator.claim(node, want=2)
    coordinator.report(node, running, Started())

    opened = coordinator.open_session(node, holds(running), holds(ended, has_exit=True), boot_id="boot-2")

    assert [item.verdict for item in opened.verdicts] == [InventoryVerdict.KILL, InventoryVerdict.REPORT]
    assert coordinator.attempt_states(job, 0) == [AttemptState.LOST]
    assert coordinator.instance(job, 0).attempts[0].reason == "its machine was restarted"
    assert coordinator.report(node, ended, exits()) == "ACCEPTED"


def test_a_node_is_asked_for_what_it_has_told_nothing_of(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=3)))
    node = coordinator.node(slots=3)
    lost, waiting, running = coordinator.claim(node, want=3)
    coordinator.report(node, running, Started())
    assert coordinator.audit(node) == []

    coordinator.later(timedelta(minutes=6))
    assert coordinator.audit(node) == [lost, waiting]
    coordinator.miss(node, lost)

    assert coordinator.attempt_states(job, lost.index) == [AttemptState.RELEASED]
    assert coordinator.attempt_states(job, waiting.index) == [AttemptState.LEASED]
    assert coordinator.audit(node) == [waiting]
    assert [ref.index for ref in coordinator.claim(node)] == [lost.index]


def test_what_an_empty_node_was_given_before_has_never_arrived(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node(slots=2)
    lost, started = coordinator.claim(node, want=2)
    coordinator.report(node, started, Started())

    coordinator.poll_empty(node)

    assert coordinator.attempt_states(job, lost.index) == [AttemptState.RELEASED]
    assert coordinator.instance(job, lost.index).infra_failures == 0
    assert coordinator.attempt_states(job, started.index) == [AttemptState.RUNNING], "it was heard of"
    assert [ref.index for ref in coordinator.claim(node)] == [lost.index]


def test_what_a_poll_brings_that_says_that_its_node_is_empty_is_on_its_way_to_it(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    coordinator.claim_one(node)
    node.poll_seq -= 1

    coordinator.poll_empty(node)  # the one that brought it, once more

    assert coordinator.attempt_states(job) == [AttemptState.LEASED]


def test_what_a_node_kept_from_its_last_session_and_has_no_more_is_given_to_others(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    coordinator.open_session(node, holds(coordinator.claim_one(node)))

    coordinator.poll_empty(node)

    assert coordinator.attempt_states(job) == [AttemptState.RELEASED]


def test_a_clock_that_was_set_back_does_not_keep_a_node_from_being_asked(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit()
    node = coordinator.node()
    lost = coordinator.claim_one(node)
    coordinator.later(timedelta(hours=-1))
    assert coordinator.audit(node) == [lost]


def test_what_a_node_misses_that_has_ended_meanwhile_changes_nothing(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits())
    coordinator.miss(node, ref)
    assert coordinator.attempt_states(job) == [AttemptState.SUCCEEDED]


def test_output_of_a_lost_attempt_is_taken_as_long_as_its_node_has_some(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    lost = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason="killed", stdout_end=700, stderr_end=0)
    coordinator.report(node, ref, lost)

    owner = coordinator.run(lambda tx: tx.log_owner(node.key, ref))
    facts = coordinator.run(lambda tx: tx.attempt_log_facts(ref))

    assert owner is not None
    assert facts is not None
    assert (facts.ended, facts.stdout_end, facts.stderr_end) == (True, 700, 0)
    opened = coordinator.open_session(node, holds(ref, has_exit=True), logs_stored=False)
    assert [item.verdict for item in opened.verdicts] == [InventoryVerdict.REPORT]


def test_output_is_waited_for_until_its_node_comes_back_without_any_record_of_it(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, exits(stdout_end=700))

    def is_given_up() -> bool:
        facts = coordinator.run(
            lambda tx: tx.log_facts(job, tenant=DEFAULT_TENANT, task="task", index=0, attempt=1)
        )
        assert facts is not None
        return facts.is_given_up

    assert not is_given_up()
    coordinator.open_session(node, holds(ref, has_exit=True), logs_stored=False, boot_id="boot-2")
    assert not is_given_up(), "it has it, and will send what is missing"
    coordinator.open_session(node, logs_stored=False, boot_id="boot-3")
    assert is_given_up()


def test_output_of_an_attempt_that_was_replaced_is_not_taken(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.mark_silent(node)
    coordinator.replace(node)
    assert coordinator.run(lambda tx: tx.log_owner(node.key, ref)) is None


def test_an_unknown_attempt_is_ended_and_told_of(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    stranger = AttemptRef(task_key=ref.task_key, index=5, attempt=3, fence=ref.fence)

    opened = coordinator.open_session(node, holds(ref), holds(stranger))

    assert [item.verdict for item in opened.verdicts] == [InventoryVerdict.KEEP, InventoryVerdict.KILL]
    (payload,) = coordinator.rows("SELECT payload FROM facts WHERE kind = 'attempt.orphaned'")
    assert f'"refs":[[{ref.task_key},5,3,{ref.fence}]]' in payload[0]


def test_a_moved_clock_does_not_change_how_long_a_back_off_lasts(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(max_retries=1)))
    node = coordinator.node()
    coordinator.report(node, coordinator.claim_one(node), Exited(code=1, signal=None))
    day = timedelta(days=1)

    coordinator.later(day)
    coordinator.run(lambda tx: tx.shift_due(day))

    assert coordinator.ready_due() == coordinator.now + timedelta(seconds=0.75)


def test_a_back_off_from_another_clock_is_not_waited_for_longer_than_any_could_last(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit(a_job(a_task(max_retries=1)))
    node = coordinator.node()
    coordinator.report(node, coordinator.claim_one(node), Exited(code=1, signal=None))
    coordinator.later(-timedelta(days=1))
    latest = coordinator.now + timedelta(minutes=5)

    coordinator.run(lambda tx: tx.bring_due_forward(latest=latest))

    assert coordinator.ready_due() == latest


def test_what_keeps_a_node_from_its_work_is_shown_as_long_as_it_does(
    coordinator: InMemoryCoordinator,
) -> None:
    node = coordinator.node()

    def reason_after(trouble: str) -> str:
        def verb(tx: Transaction) -> None:
            note_trouble(tx, current_node(tx, node.key, node.session), trouble)

        coordinator.run(verb)
        return str(coordinator.rows("SELECT reason FROM nodes")[0][0])

    assert reason_after("disk full") == "disk full"
    assert reason_after("") == ""
    coordinator.drain(node)
    assert reason_after("disk full") == "drained by its operator"


def test_what_a_silent_node_never_started_goes_back_at_no_cost(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    for _ in range(4):
        node = coordinator.node()
        coordinator.claim_one(node)
        coordinator.mark_silent(node)
        coordinator.replace(node)

    instance = coordinator.instance(job)
    assert [attempt.state for attempt in instance.attempts] == [AttemptState.RELEASED] * 4
    assert (instance.state, instance.infra_failures) == (InstanceState.READY, 0)


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
