"""What every database behind the coordinator must keep (`windlass_coordinator.stores.base`)."""

from dataclasses import replace
from datetime import timedelta

from tests.support.stored_records import (
    FACTS,
    NOW,
    SOMEBODY_ELSE,
    a_cluster,
    a_job,
    a_node,
    a_task,
    claim,
    new_job,
    the,
)
from windlass_coordinator.core.records import (
    Fact,
    TaskBump,
)
from windlass_coordinator.engine.session import NewNode, join
from windlass_coordinator.engine.sweep import forget_nodes
from windlass_coordinator.stores.base import (
    AttemptEnd,
    InstanceChange,
    Store,
    Transaction,
)
from windlass_coordinator.stores.machines import Credential
from windlass_proto.model.events import Exited
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
    AttemptRef,
    Fence,
    JobId,
    NodeId,
    TaskKey,
)
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import AttemptState, InstanceState, JobState, NodeState, TaskState


def test_writes_with_an_old_fence_change_no_attempt(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster)
    (ref,) = store.run_now(lambda tx: claim(tx, node))
    old = AttemptRef(task_key=ref.task_key, index=0, attempt=1, fence=Fence(ref.fence - 1))
    before = store.run_now(lambda tx: tx.attempt_views([ref]))

    store.run_now(lambda tx: tx.progress_attempts([(old, AttemptState.RUNNING)], now=NOW))
    store.run_now(lambda tx: tx.record_exits([(old, Exited(code=0, signal=None))], now=NOW))
    store.run_now(lambda tx: tx.end_attempts([AttemptEnd(ref=old, state=AttemptState.FAILED)], now=NOW))

    assert store.run_now(lambda tx: tx.attempt_views([ref])) == before


def test_a_terminal_attempt_never_changes(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster)
    (ref,) = store.run_now(lambda tx: claim(tx, node))
    end = AttemptEnd(
        ref=ref, state=AttemptState.FAILED, failure=FailureKind.OOM, exit=Exited(code=None, signal=9)
    )
    store.run_now(lambda tx: tx.end_attempts([end], now=NOW))
    before = store.run_now(lambda tx: tx.attempt_views([ref]))

    store.run_now(lambda tx: tx.progress_attempts([(ref, AttemptState.RUNNING)], now=NOW))
    store.run_now(lambda tx: tx.end_attempts([AttemptEnd(ref=ref, state=AttemptState.SUCCEEDED)], now=NOW))

    (view,) = before.values()
    assert (view.state, view.failure, view.exit_code, view.exit_signal) == ("FAILED", "OOM", None, 9)
    assert store.run_now(lambda tx: tx.attempt_views([ref])) == before
    assert store.run_now(lambda tx: tx.held_attempts(node)) == []


def test_output_is_given_up_that_a_node_does_not_bring_into_its_next_session(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    job = new_job(cluster, a_task("a", instances=2))
    store.run_now(lambda tx: tx.add_job(job, now=NOW))
    kept, lost = store.run_now(lambda tx: claim(tx, node, want=2))
    ends = [
        AttemptEnd(ref=ref, state=AttemptState.FAILED, exit=Exited(code=1, signal=None, stdout_end=9))
        for ref in (kept, lost)
    ]
    store.run_now(lambda tx: tx.end_attempts(ends, now=NOW))

    def given_up(tx: Transaction) -> list[bool]:
        read = [tx.log_facts(job.job_id, tenant=DEFAULT_TENANT, task="a", index=i, attempt=1) for i in (0, 1)]
        return [the(facts).is_given_up for facts in read]

    def open_session(tx: Transaction) -> None:
        view = the(tx.node_view(node))
        again = {"state_id": "state", "boot_id": "boot-2", "nonce": "nonce-2", "last_nonce": "nonce"}
        tx.open_session(view, FACTS, **again, epoch=view.epoch + 1, now=NOW)
        tx.keep_output_due([kept], epoch=view.epoch + 1)

    told = [store.run_now(given_up)]
    store.run_now(lambda tx: tx.set_node_wish(node, NodeState.DRAINING, reason="", drain_by=NOW))
    store.run_now(lambda tx: tx.end_session(the(tx.node_view(node))))
    told.append(store.run_now(given_up))
    store.run_now(open_session)
    store.run_now(lambda tx: tx.set_node_wish(node, None, reason="", drain_by=None))
    told.append(store.run_now(given_up))
    store.run_now(lambda tx: tx.set_node_state(node, NodeState.GONE, now=NOW))
    told.append(store.run_now(given_up))

    assert told == [[False, False], [False, False], [False, True], [True, True]]


def test_attempts_are_found_whether_they_lie_close_together_or_far_apart(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("a", instances=50), a_task("b", instances=3))
    refs = store.run_now(lambda tx: claim(tx, node, want=50))
    stranger = AttemptRef(task_key=TaskKey(99), index=0, attempt=1, fence=refs[0].fence)

    for asked in (refs, refs[::20], [refs[0]], [refs[49], stranger, refs[52]], []):
        views = store.run_now(lambda tx, asked=asked: tx.attempt_views(asked))  # type: ignore[misc]  # a default in a lambda
        known = {(ref.task_key, ref.index, 1) for ref in asked if ref != stranger}
        assert known <= views.keys()
        assert (99, 0, 1) not in views


def test_back_offs_come_due_in_their_order(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=3))
    refs = store.run_now(lambda tx: claim(tx, node, want=3))
    due = [NOW + timedelta(seconds=s) for s in (3, 1, 2)]

    def put_off(tx: Transaction) -> None:
        tx.end_attempts([AttemptEnd(ref=ref, state=AttemptState.FAILED) for ref in refs], now=NOW)
        tx.change_instances(
            [
                InstanceChange(
                    task_key=ref.task_key,
                    index=ref.index,
                    state=InstanceState.RETRY_WAIT,
                    user_failures=1,
                    due_at=when,
                )
                for ref, when in zip(refs, due, strict=True)
            ]
        )
        bump = TaskBump(active=-3, retry_wait=3)
        tx.bump_tasks({refs[0].task_key: (bump, TaskState.RUNNING)}, ended=(), now=NOW)

    store.run_now(put_off)
    key = refs[0].task_key

    assert store.run_now(lambda tx: tx.next_due()) == due[1]
    assert store.run_now(lambda tx: tx.due_instances(now=NOW, limit=9)) == []
    at_two = store.run_now(lambda tx: tx.due_instances(now=NOW + timedelta(seconds=2), limit=9))
    assert at_two == [(key, 1), (key, 2)]
    assert store.run_now(lambda tx: tx.due_instances(now=due[0], limit=1)) == [(key, 1)]
    assert store.run_now(lambda tx: tx.make_ready(at_two, avoid_until=NOW)) == {cluster}
    assert store.run_now(lambda tx: tx.next_due()) == due[0]
    again = store.run_now(lambda tx: claim(tx, node, want=9, poll_seq=2))
    assert [(ref.index, ref.attempt) for ref in again] == [(1, 2), (2, 2)]
    assert all(ref.fence > refs[0].fence for ref in again)
    assert store.run_now(lambda tx: tx.failure_counts(key, 1)) == (1, 0)


def test_nodes_that_an_instance_has_taken_down_are_counted_over_its_last_failures(store: Store) -> None:
    cluster = a_cluster(store)
    a_job(store, cluster)
    kinds = [FailureKind.INFRA_NODE_LOST, FailureKind.PREEMPTED, FailureKind.INFRA_KEEPER_LOST]
    last: list[AttemptRef] = []
    for number, kind in enumerate([*kinds, FailureKind.INFRA_NODE_LOST]):
        node = a_node(store, cluster, node_id=f"node-{number}")
        last = store.run_now(lambda tx, on=node: claim(tx, on))
        end = AttemptEnd(ref=last[0], state=AttemptState.LOST, failure=kind)
        again = InstanceChange(
            task_key=end.ref.task_key, index=0, state=InstanceState.READY, infra_failures=1, raise_fence=True
        )
        bump = {end.ref.task_key: (TaskBump(active=-1, ready_again=1), TaskState.RUNNING)}
        store.run_now(lambda tx, end=end: tx.end_attempts([end], now=NOW))
        store.run_now(lambda tx, again=again: tx.change_instances([again]))
        store.run_now(lambda tx, bump=bump: tx.bump_tasks(bump, ended=(), now=NOW))

    def taken_down(within: int) -> int:
        return store.run_now(lambda tx: tx.nodes_taken_down(last[0], last=within))

    assert [taken_down(within) for within in (1, 2, 3, 4, 9)] == [1, 2, 2, 3, 3]


def test_what_a_restart_made_ready_ends_with_its_task(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    job = a_job(store, cluster)
    (ref,) = store.run_now(lambda tx: claim(tx, node))

    def stop(tx: Transaction) -> None:
        tx.end_attempts([AttemptEnd(ref=ref, state=AttemptState.STOPPED)], now=NOW)
        change = InstanceChange(task_key=ref.task_key, index=0, state=InstanceState.STOPPED)
        tx.change_instances([change])
        bump = TaskBump(active=-1, stopped=1)
        tx.bump_tasks({ref.task_key: (bump, TaskState.STOPPED)}, ended=[ref.task_key], now=NOW)

    def skip(tx: Transaction) -> None:
        tx.set_task_states([ref.task_key], TaskState.SKIPPED, reason="why", now=NOW)

    store.run_now(stop)
    for _ in range(2):
        store.run_now(lambda tx: tx.restart_job(job, all_instances=True, now=NOW))
        (ready,) = store.run_now(lambda tx: tx.job_task_views(job))
        store.run_now(skip)
        (skipped,) = store.run_now(lambda tx: tx.job_task_views(job))
        assert (ready.ready_again, ready.stopped) == (1, 0)
        assert (skipped.ready_again, skipped.stopped) == (0, 1)


def test_stopping_attempts_are_told_by_node(store: Store) -> None:
    cluster = a_cluster(store)
    node, other = a_node(store, cluster), a_node(store, cluster, node_id="node-2")
    job = a_job(store, cluster, a_task(instances=2))
    (ours,) = store.run_now(lambda tx: claim(tx, node))
    store.run_now(lambda tx: claim(tx, other))

    assert store.run_now(lambda tx: tx.nodes_running(job)) == {node, other}
    store.run_now(lambda tx: tx.begin_stopping(job, stop_as=JobState.STOPPED, reason="why", now=NOW))

    assert store.run_now(lambda tx: tx.stopping_attempts(node)) == [ours]


def test_a_specification_comes_back_as_it_was_accepted(store: Store) -> None:
    cluster = a_cluster(store)
    tasks = (
        a_task("a", instances=3, env={"K": "wörd"}, timeout=timedelta(seconds=1.5), max_retries=2),
        a_task("b", after=("a",), resources=Resources(cpu=0.5, memory_bytes=7, slots=2)),
    )
    a_job(store, cluster, *tasks)

    spec = store.run_now(lambda tx: tx.job_spec(JobId("id-of-job"), tenant=DEFAULT_TENANT))

    assert spec == JobSpec(name="job", tasks=tasks)


def test_a_submission_is_found_by_tenant_and_key(store: Store) -> None:
    store.run_now(lambda tx: tx.add_submission(DEFAULT_TENANT, "key", request_digest="d", job_id=JobId("j")))

    assert store.run_now(lambda tx: tx.find_submission(DEFAULT_TENANT, "key")) == ("d", "j")
    assert store.run_now(lambda tx: tx.find_submission(SOMEBODY_ELSE, "key")) is None
    assert store.run_now(lambda tx: tx.find_submission(DEFAULT_TENANT, "Key")) is None


def test_a_credential_comes_back_as_it_was(store: Store) -> None:
    credential = Credential(
        token_id="t", kind="wlj", digest="d", tenant=DEFAULT_TENANT, uses_left=2, expires_at=NOW
    )
    store.run_now(lambda tx: tx.add_credential(credential, now=NOW))
    store.run_now(lambda tx: tx.use_credential("t"))

    found = store.run_now(lambda tx: tx.credential("t"))

    assert found == Credential(
        token_id="t", kind="wlj", digest="d", tenant=DEFAULT_TENANT, uses_left=1, expires_at=NOW
    )
    assert store.run_now(lambda tx: tx.credential("unknown")) is None


async def test_what_is_looked_up_is_what_was_committed(store: Store) -> None:
    cluster = a_cluster(store)
    first = a_node(store, cluster)
    assert the(await store.look_up(lambda tx: tx.node_view(first))).node_key == first
    second = a_node(store, cluster, node_id="node-2")
    assert the(await store.look_up(lambda tx: tx.node_view(second))).node_key == second


def test_facts_are_taken_with_their_change(store: Store) -> None:
    fact = Fact(kind=FactKind.JOB_SUBMITTED, tenant=DEFAULT_TENANT, payload={"index": [[0, 3]]})

    store.run_now(lambda tx: tx.add_facts([fact, fact], now=NOW))
    store.run_now(lambda tx: tx.add_facts([], now=NOW))


def test_nodes_are_found_by_their_state(store: Store) -> None:
    cluster = a_cluster(store)
    ready, silent = a_node(store, cluster), a_node(store, cluster, node_id="node-2")
    store.run_now(lambda tx: tx.set_node_state(silent, NodeState.SILENT, now=NOW))

    assert store.run_now(lambda tx: tx.nodes_in((NodeState.READY,))) == [ready]
    assert sorted(store.run_now(lambda tx: tx.nodes_in((NodeState.READY, NodeState.SILENT)))) == [
        ready,
        silent,
    ]


def test_a_node_that_never_came_after_it_had_joined_is_forgotten_and_costs_its_token_a_use(
    store: Store,
) -> None:
    cluster = a_cluster(store)
    came = a_node(store, cluster)
    token = Credential(
        token_id="t", kind="wlj", digest="d", tenant=DEFAULT_TENANT, cluster_key=cluster, uses_left=2
    )
    new = NewNode(node_id=NodeId("node-2"), credential_kind="wln", credential_id="n", credential_digest="d")
    store.run_now(lambda tx: tx.add_credential(token, now=NOW))
    ghost = store.run_now(lambda tx: join(tx, token, FACTS, new, now=NOW))
    its_own = store.run_now(lambda tx: tx.credential("n"))
    assert store.run_now(lambda tx: tx.nodes_in((NodeState.JOINING,))) == [ghost]

    store.run_now(lambda tx: forget_nodes(tx, [came, ghost], now=NOW))

    assert store.run_now(lambda tx: tx.nodes_in((NodeState.READY,))) == [came]
    assert store.run_now(lambda tx: tx.nodes_in((NodeState.GONE,))) == [ghost]
    assert store.run_now(lambda tx: tx.credential("t")) == replace(token, uses_left=1)
    assert store.run_now(lambda tx: tx.credential("n")) == its_own
