"""What a node has and has not: after a reboot, when it is asked, and when it never says."""

from datetime import timedelta

from tests.support.builders import a_job, a_task, exits, holds
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.nodes import note_trouble
from windlass_coordinator.engine.session import current_node
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.events import Exited, LostOnNode, Started
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef
from windlass_proto.model.states import AttemptState, InstanceState
from windlass_proto.model.verdicts import InventoryVerdict


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
