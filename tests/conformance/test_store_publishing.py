"""Who may publish outputs, on every database."""

from dataclasses import replace

from tests.support.stored_records import NOW, a_cluster, a_job, a_node, claim
from windlass_coordinator.core.publishing import Publication, Standing
from windlass_coordinator.stores.base import InstanceChange, Store
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.states import AttemptState, InstanceState, JobState


def an_attempt(store: Store) -> tuple[AttemptRef, NodeKey]:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster)
    (ref,) = store.run_now(lambda tx: claim(tx, node))
    return ref, node


def test_the_standing_of_an_attempt_tells_whether_its_instance_is_its_own(store: Store) -> None:
    ref, node = an_attempt(store)
    fresh = Standing(
        state=AttemptState.LEASED,
        fence=ref.fence,
        node_key=node,
        epoch=1,
        is_detached=False,
        newest_attempt=1,
        newest_fence=ref.fence,
    )
    assert store.run_now(lambda tx: tx.standing(ref)) == fresh
    store.run_now(lambda tx: tx.detach_attempts(node))
    assert store.run_now(lambda tx: tx.standing(ref)) == replace(fresh, is_detached=True)
    revoked = InstanceChange(
        task_key=ref.task_key, index=ref.index, state=InstanceState.READY, raise_fence=True
    )
    store.run_now(lambda tx: tx.change_instances([revoked]))
    assert store.run_now(lambda tx: tx.standing(ref)) == replace(
        fresh, is_detached=True, newest_fence=ref.fence + 1
    )
    assert store.run_now(lambda tx: tx.standing(replace(ref, attempt=2))) is None


def test_an_instance_has_one_publication_and_the_newest_stands(store: Store) -> None:
    ref, _ = an_attempt(store)
    first = Publication(ref=ref, manifest_digest="1" * 64, files=2, size_bytes=1 << 50)
    later = replace(first, ref=replace(ref, attempt=2), files=0)
    assert store.run_now(lambda tx: tx.published(ref.task_key, ref.index)) is None
    for publication in (first, later):
        store.run_now(lambda tx, publication=publication: tx.publish(publication))
        assert store.run_now(lambda tx: tx.published(ref.task_key, ref.index)) == publication


def test_a_removed_job_leaves_no_publication(store: Store) -> None:
    ref, _ = an_attempt(store)
    a_job(store, store.run_now(lambda tx: tx.task_views([ref.task_key]))[ref.task_key].cluster_key, name="2")
    store.run_now(
        lambda tx: tx.publish(Publication(ref=ref, manifest_digest="1" * 64, files=1, size_bytes=1))
    )
    job_key = store.run_now(lambda tx: tx.task_views([ref.task_key]))[ref.task_key].job_key
    store.run_now(lambda tx: tx.end_job(job_key, JobState.FAILED, reason="", now=NOW))
    store.run_now(lambda tx: tx.delete_job(job_key, now=NOW))
    assert store.run_now(lambda tx: tx.remove_job_rows(job_key, limit=100))[1]
    assert store.run_now(lambda tx: tx.published(ref.task_key, ref.index)) is None
