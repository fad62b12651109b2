"""What every database behind the coordinator lets a node have, and knows it to have."""

from dataclasses import replace

import pytest

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
from windlass_coordinator.stores.base import (
    AttemptEnd,
    Store,
)
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
    AttemptRef,
    ClusterName,
    Fence,
    JobId,
)
from windlass_proto.model.resources import Resources
from windlass_proto.model.states import AttemptState, NodeState


def test_an_instance_comes_into_being_when_it_is_claimed(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=1_000_000))

    refs = store.run_now(lambda tx: claim(tx, node, want=100))

    assert [(ref.index, ref.attempt) for ref in refs] == [(index, 1) for index in range(100)]
    assert store.run_now(lambda tx: len(tx.held_attempts(node))) == 100
    (task,) = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=1, gpus=0)))
    assert (task.next_index, task.ready_again, task.instance_count) == (100, 0, 1_000_000)


@pytest.mark.parametrize("want", [1, 7, 8, 9])
def test_a_large_claim_and_many_small_ones_are_the_same(store: Store, want: int) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=18))

    refs = [
        ref
        for seq in range(-(-18 // want))
        for ref in store.run_now(lambda tx, seq=seq: claim(tx, node, want=want, poll_seq=seq))  # type: ignore[misc]  # a default in a lambda
    ]

    assert [ref.index for ref in refs] == list(range(18))
    assert len({ref.fence for ref in refs}) == 1
    (held,) = {attempt.state for attempt in store.run_now(lambda tx: tx.held_attempts(node))}
    assert held is AttemptState.LEASED


def test_what_can_be_claimed_comes_by_priority_then_age(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    keys = [a_job(store, cluster, name=name, priority=p) for name, p in [("a", 0), ("b", 5), ("c", 5)]]
    store.run_now(lambda tx: tx.set_priority(keys[0], -3))

    claimable = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=10, gpus=0)))

    assert [task.job_id for task in claimable] == ["id-of-b", "id-of-c", "id-of-a"]
    assert store.run_now(lambda tx: len(list(tx.claimable(the(tx.node_view(node)), limit=2, gpus=0)))) == 2


def test_what_does_not_fit_a_node_or_is_not_of_its_cluster_cannot_be_claimed(store: Store) -> None:
    cluster, other = a_cluster(store), a_cluster(store, "other")
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("large", resources=Resources(slots=5)), name="large")
    a_job(store, other, a_task("theirs", cluster=ClusterName("other")), name="theirs")
    a_job(
        store, cluster, a_task("fits", resources=Resources(slots=4, cpu=4, memory_bytes=1 << 30)), name="fits"
    )

    claimable = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=10, gpus=0)))

    assert [task.name for task in claimable] == ["fits"]


def test_what_needs_more_gpus_than_are_left_cannot_be_claimed(store: Store) -> None:
    node = a_node(store, cluster := a_cluster(store))
    a_job(store, cluster, *(a_task(f"{n}", resources=Resources(gpus=n)) for n in (3, 2, 1, 0)))

    def claimable(gpus: int) -> list[tuple[str, int]]:
        found = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=10, gpus=gpus)))
        return [(task.name, task.gpus) for task in found]

    assert claimable(2) == [("2", 2), ("1", 1), ("0", 0)]
    assert claimable(0) == [("0", 0)]


def test_gpus_are_in_use_from_the_lease_of_an_attempt_to_its_end(store: Store) -> None:
    node = a_node(store, cluster := a_cluster(store))
    a_job(store, cluster, a_task(instances=2, resources=Resources(gpus=1)), a_task("without", instances=2))

    def in_use() -> int:
        return store.run_now(lambda tx: tx.gpus_in_use(node))

    assert in_use() == 0
    refs = store.run_now(lambda tx: claim(tx, node, want=2))
    assert in_use() == 2
    store.run_now(lambda tx: tx.progress_attempts([(refs[0], AttemptState.RUNNING)], now=NOW))
    assert in_use() == 2
    store.run_now(lambda tx: tx.end_attempts([AttemptEnd(ref=refs[0], state=AttemptState.LOST)], now=NOW))
    assert in_use() == 1


async def test_tasks_of_which_nothing_is_on_a_node_are_told_with_the_sizes_that_nodes_have(
    store: Store,
) -> None:
    cluster, empty = a_cluster(store), a_cluster(store, "empty")
    node = a_node(store, cluster)
    a_node(store, cluster, node_id="its-twin")
    silent = a_node(store, empty, node_id="silent")
    store.run_now(lambda tx: tx.set_node_state(silent, NodeState.SILENT, now=NOW))
    needs = Resources(cpu=0.5, memory_bytes=7, slots=2, gpus=3)
    new = new_job(
        cluster,
        *(a_task("large", resources=needs), a_task("runs"), a_task("later", after=("runs",))),
        a_task("there", cluster=ClusterName("empty")),
    )
    job = replace(new, clusters={**new.clusters, ClusterName("empty"): empty})
    store.run_now(lambda tx: tx.add_job(job, now=NOW))
    store.run_now(lambda tx: claim(tx, node))

    waiting = await store.read(lambda q: q.waiting_tasks(job.job_id, tenant=DEFAULT_TENANT))

    assert [(one.name, one.cluster, one.needs, one.sizes) for one in waiting] == [
        ("large", "default", needs, (FACTS.capacity,)),
        ("there", "empty", Resources(), ()),
    ]
    assert await store.read(lambda q: q.waiting_tasks(job.job_id, tenant=SOMEBODY_ELSE)) == []


async def test_the_gpus_of_a_node_are_what_its_last_session_said(store: Store) -> None:
    node = a_node(store, a_cluster(store))
    assert store.run_now(lambda tx: the(tx.node_view(node)).capacity) == FACTS.capacity
    (listed,) = await store.read(
        lambda q: q.list_nodes(DEFAULT_TENANT, cluster="", include_gone=False, node_id="")
    )
    assert listed.gpus == FACTS.gpus


async def test_the_first_image_that_is_noted_of_an_attempt_stays(store: Store) -> None:
    node = a_node(store, cluster := a_cluster(store))
    a_job(store, cluster, a_task(instances=2))
    refs = store.run_now(lambda tx: claim(tx, node, want=2))
    late = refs[1]
    old = AttemptRef(
        task_key=late.task_key, index=late.index, attempt=late.attempt, fence=Fence(late.fence - 1)
    )
    store.run_now(lambda tx: tx.note_images([(refs[0], "sha256:one"), (old, "sha256:old")]))
    store.run_now(lambda tx: tx.note_images([(refs[0], "sha256:other")]))
    listed = await store.read(
        lambda q: q.list_instances(
            JobId("id-of-job"),
            tenant=DEFAULT_TENANT,
            task="",
            index=None,
            limit=10,
            after=None,
            all_attempts=False,
        )
    )
    assert [one.attempts[-1].image_digest for one in the(listed)[0]] == ["sha256:one", ""]


def test_a_poll_finds_what_it_has_leased_in_its_epoch(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("a", instances=2), a_task("b"))
    refs = store.run_now(lambda tx: claim(tx, node, want=3, poll_seq=7))

    def leased(poll_seq: int) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        found = store.run_now(lambda tx: tx.leased_by_poll(the(tx.node_view(node)), poll_seq=poll_seq))
        return [(c.task.name, c.index, c.fence) for c in found]

    fence = refs[0].fence
    assert leased(7) == [("a", (0, 1), (fence, fence)), ("b", (0,), (fence,))]
    assert leased(8) == []
    store.run_now(lambda tx: tx.progress_attempts([(refs[0], AttemptState.RUNNING)], now=NOW))
    assert leased(7) == [("a", (1,), (fence,)), ("b", (0,), (fence,))]
    store.run_now(lambda tx: tx.adopt_attempts(the(tx.node_view(node)), epoch=2))
    assert leased(7) == []


def test_what_earlier_polls_of_a_session_were_given_and_nobody_has_heard_of_is_known(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    other = a_node(store, cluster, node_id="node-2")
    a_job(store, cluster, a_task(instances=4))
    first, heard = store.run_now(lambda tx: claim(tx, node, want=2, poll_seq=7))
    (second,) = store.run_now(lambda tx: claim(tx, node, poll_seq=8))
    store.run_now(lambda tx: claim(tx, other, poll_seq=1))
    store.run_now(lambda tx: tx.progress_attempts([(heard, AttemptState.RUNNING)], now=NOW))

    def before(poll_seq: int) -> list[AttemptRef]:
        return store.run_now(lambda tx: tx.leased_before(the(tx.node_view(node)), poll_seq=poll_seq))

    assert (before(7), before(8), before(9)) == ([], [first], [first, second])
