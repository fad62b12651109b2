"""Nodes join, open sessions, vanish and come back."""

from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, holds
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.clusters import NewJoinToken, create_join_token, delete_cluster
from windlass_coordinator.engine.sweep import forget_nodes
from windlass_proto.errors import Conflict, Denied, InvalidRequest, NotFound, SessionLost
from windlass_proto.model.assignments import InventoryItem, VerdictItem
from windlass_proto.model.events import Started
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef
from windlass_proto.model.states import AttemptPhase, AttemptState, InstanceState, JobState
from windlass_proto.model.verdicts import InventoryVerdict

KEEP, REPORT, KILL, FORGET = InventoryVerdict


def node_state(coordinator: InMemoryCoordinator, machine: Machine) -> str:
    return str(coordinator.rows("SELECT state FROM nodes WHERE node_key = ?", machine.key)[0][0])


# Joining


def test_a_join_token_makes_as_many_nodes_as_it_has_uses(coordinator: InMemoryCoordinator) -> None:
    token = coordinator.join_token(uses=2)
    assert coordinator.join(token).node_id != coordinator.join(token).node_id

    with pytest.raises(Denied, match="used up, expired or unknown: make a new one"):
        coordinator.join(token)


def test_an_expired_join_token_is_refused(coordinator: InMemoryCoordinator) -> None:
    token = coordinator.join_token()
    coordinator.later(timedelta(minutes=15))

    with pytest.raises(Denied, match="used up, expired or unknown"):
        coordinator.join(token)


@pytest.mark.parametrize(
    ("uses", "valid_for", "complaint"),
    [
        (0, timedelta(minutes=1), "uses: must be between 1 and"),
        (1, timedelta(0), "valid_for: must be above 0"),
        (1, timedelta.max, "valid_for: must be above 0 and at most 7 days"),
    ],
)
def test_a_join_token_has_limits(
    coordinator: InMemoryCoordinator, uses: int, valid_for: timedelta, complaint: str
) -> None:
    new = NewJoinToken(
        kind="wlj", token_id="t", digest="d", cluster="default", uses=uses, valid_for=valid_for
    )

    with pytest.raises(InvalidRequest, match=complaint):
        coordinator.run(lambda tx: create_join_token(tx, DEFAULT_TENANT, new, now=coordinator.now))


def test_a_join_token_for_an_unknown_cluster_names_those_that_exist(
    coordinator: InMemoryCoordinator,
) -> None:
    with pytest.raises(NotFound, match=r"there is no cluster 'gpu' \(clusters here: default\)"):
        coordinator.join_token("gpu")


# Clusters


def test_a_cluster_in_use_is_not_deleted(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("gpu")
    node = coordinator.node(cluster="gpu")

    with pytest.raises(Conflict, match="still has 1 node"):
        coordinator.run(lambda tx: delete_cluster(tx, DEFAULT_TENANT, "gpu"))
    coordinator.leave(node)
    coordinator.run(lambda tx: delete_cluster(tx, DEFAULT_TENANT, "gpu"))
    coordinator.create_cluster("gpu")


def test_nobody_joins_a_deleted_cluster(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("gpu")
    token = coordinator.join_token("gpu")
    coordinator.run(lambda tx: delete_cluster(tx, DEFAULT_TENANT, "gpu"))

    with pytest.raises(Denied, match="used up, expired or unknown"):
        coordinator.join(token)


def test_a_deleted_cluster_cannot_be_asked_for(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("gpu")
    coordinator.run(lambda tx: delete_cluster(tx, DEFAULT_TENANT, "gpu"))
    (stored,) = coordinator.rows("SELECT name FROM clusters WHERE name <> 'default'")[0]

    for name in ("gpu", str(stored)):
        with pytest.raises(NotFound):
            coordinator.join_token(name)


def test_a_node_tells_again_how_an_attempt_ended_that_has_no_exit_record(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)

    lost = InventoryItem(ref=ref, phase=AttemptPhase.ENDED, seq=3, has_exit=False)
    opened = coordinator.open_session(node, lost)

    assert [item.verdict for item in opened.verdicts] == [InventoryVerdict.REPORT]


# Whose session it is


def test_each_session_has_a_number_and_a_nonce_of_its_own(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    epoch, nonce = node.epoch, node.nonce

    coordinator.open_session(node)

    assert node.epoch == epoch + 1
    assert node.nonce != nonce


def test_a_lost_reply_to_open_session_is_no_reason_to_refuse_a_node(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    nonce = node.nonce
    coordinator.open_session(node)

    coordinator.open_session(node, nonce=nonce)

    assert node.epoch == 3


def test_any_number_of_lost_replies_is_no_reason(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    coordinator.claim(node)
    nonce = node.nonce

    for _ in range(3):
        coordinator.open_session(node, nonce=nonce)

    assert node.epoch == 4


def test_a_lost_first_reply_is_no_reason_either(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.join(coordinator.join_token())
    coordinator.open_session(node, nonce="")

    coordinator.open_session(node, nonce="")

    assert node.epoch == 2


def test_a_copy_of_a_node_is_refused_once_the_node_has_gone_on(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    copied = node.nonce
    coordinator.open_session(node)
    coordinator.claim(node)

    with pytest.raises(Denied, match=f"another copy of node {node.node_id} has opened a session since"):
        coordinator.open_session(node, nonce=copied)
    assert coordinator.claim(node) == [], "the node itself goes on undisturbed"


def test_whichever_answer_to_a_doubled_call_arrives_the_node_can_open_its_next_session(
    coordinator: InMemoryCoordinator,
) -> None:
    node = coordinator.node()
    had = node.nonce
    first = coordinator.open_session(node, nonce=had)
    second = coordinator.open_session(node, nonce=had)
    assert (second.epoch, second.nonce) == (first.epoch + 1, first.nonce)
    coordinator.open_session(node, nonce=first.nonce)


def test_a_node_that_has_lost_its_nonce_is_a_copy_too(coordinator: InMemoryCoordinator) -> None:
    node = coordinator.node()
    coordinator.claim(node)

    for forged in ("", "nonsense"):
        with pytest.raises(Denied, match="another copy"):
            coordinator.open_session(node, nonce=forged)


# What it has


def test_a_new_session_keeps_what_runs(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node()
    running, ended = coordinator.claim(node, want=2)
    coordinator.report(node, running, Started())

    opened = coordinator.open_session(node, holds(running), holds(ended, has_exit=True))

    assert opened.verdicts == [
        VerdictItem(ref=running, verdict=KEEP, from_seq=1),
        VerdictItem(ref=ended, verdict=REPORT, from_seq=1),
    ]
    coordinator.report(node, running, exits())
    coordinator.report(node, ended, exits())
    assert coordinator.state(job) is JobState.SUCCEEDED
    assert coordinator.attempt_states(job) == [AttemptState.SUCCEEDED]


def test_a_reported_result_is_forgotten_when_its_logs_are_stored(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    (ref,) = coordinator.finish(node)

    not_yet = coordinator.open_session(node, holds(ref, has_exit=True), logs_stored=False)
    now = coordinator.open_session(node, holds(ref, has_exit=True), logs_stored=True)

    assert [not_yet.verdicts[0].verdict, now.verdicts[0].verdict] == [REPORT, FORGET]


def test_what_is_missing_and_was_never_heard_of_goes_back_to_the_queue(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit(a_job(a_task(instances=20)))
    node = coordinator.node()
    coordinator.claim(node, want=20)

    coordinator.open_session(node, holds(node.held[3]))

    states = [coordinator.instance(job, index).state for index in range(20)]
    assert states.count(InstanceState.READY) == 19
    assert states[3] is InstanceState.ACTIVE
    assert (
        sum(row[0] for row in coordinator.rows("SELECT user_failures + infra_failures FROM instances")) == 0
    )


def test_what_is_missing_and_had_started_is_lost_at_the_infrastructures_cost(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())

    coordinator.open_session(node)

    instance = coordinator.instance(job)
    assert (instance.state, instance.user_failures, instance.infra_failures) == (
        InstanceState.RETRY_WAIT,
        0,
        1,
    )
    assert [attempt.state for attempt in instance.attempts] == [AttemptState.LOST]


def test_a_node_cannot_list_another_nodes_attempt(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    owner, other = coordinator.node(), coordinator.node()
    ref = coordinator.claim_one(owner)

    assert coordinator.open_session(other, holds(ref)).verdicts[0].verdict is KILL
    assert coordinator.instance(job).state is InstanceState.ACTIVE


def test_an_attempt_that_never_was_is_killed(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    stranger = AttemptRef(task_key=ref.task_key, index=7, attempt=1, fence=ref.fence)

    verdicts = coordinator.open_session(node, holds(ref), holds(stranger)).verdicts

    assert [item.verdict for item in verdicts] == [KEEP, KILL]


# Silence


def test_a_silent_nodes_attempts_are_detached_not_lost(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started())
    coordinator.mark_silent(node)

    assert node_state(coordinator, node) == "SILENT"
    assert coordinator.attempt_states(job) == [AttemptState.RUNNING]
    with pytest.raises(SessionLost, match="SILENT"):
        coordinator.report(node, ref, exits())

    coordinator.open_session(node, holds(ref))

    assert coordinator.rows("SELECT detached FROM attempts") == [(0,)]
    coordinator.report(node, ref, exits())
    assert coordinator.attempt_states(job) == [AttemptState.SUCCEEDED]


def test_a_replaced_node_finds_its_attempts_fenced(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    lost, other = coordinator.node(), coordinator.node()
    old = coordinator.claim_one(lost)
    coordinator.report(lost, old, Started())
    coordinator.mark_silent(lost)
    coordinator.replace(lost)
    coordinator.later(timedelta(minutes=1))
    coordinator.ready_due()
    new = coordinator.claim_one(other)

    assert coordinator.open_session(lost, holds(old, has_exit=True)).verdicts[0].verdict is KILL
    assert coordinator.report(lost, old, exits()) == "SUPERSEDED"
    assert coordinator.report(other, new, exits()) == "ACCEPTED"

    instance = coordinator.instance(job)
    assert [(a.attempt, a.state) for a in instance.attempts] == [
        (1, AttemptState.LOST),
        (2, AttemptState.SUCCEEDED),
    ]
    assert (instance.user_failures, instance.infra_failures) == (0, 1)


def test_a_node_that_came_back_in_time_is_not_replaced(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.mark_silent(node)
    coordinator.open_session(node, holds(ref))

    coordinator.replace(node)

    assert coordinator.attempt_states(job) == [AttemptState.LEASED]


def test_a_node_gone_for_long_may_come_back_without_its_old_attempts(
    coordinator: InMemoryCoordinator,
) -> None:
    node = coordinator.node()
    coordinator.mark_silent(node)
    coordinator.replace(node)
    coordinator.run(lambda tx: forget_nodes(tx, [node.key], now=coordinator.now))
    assert node_state(coordinator, node) == "GONE"

    coordinator.open_session(node)

    assert node_state(coordinator, node) == "READY"


def test_a_node_that_leaves_gives_its_work_back(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=2)))
    node, other = coordinator.node(), coordinator.node()
    _, started = coordinator.claim(node, want=2)
    coordinator.report(node, started, Started())

    coordinator.leave(node)

    assert coordinator.instance(job, 0).state is InstanceState.READY
    assert coordinator.instance(job, 1).state is InstanceState.RETRY_WAIT
    assert [ref.index for ref in coordinator.claim(other, want=9)] == [0]
    with pytest.raises(SessionLost):
        coordinator.claim(node)
