"""What every database must do to forget what is old, and to go on from a backup."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.stored_records import (
    NOW,
    a_cluster,
    a_job,
    a_node,
    a_task,
    claim,
    new_job,
    the,
)
from windlass_coordinator.core.records import Fact, JobKey
from windlass_coordinator.core.retention import EndedJob
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_coordinator.stores.machines import Credential
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef, JobId, NodeKey
from windlass_proto.model.states import JobState

DAY = timedelta(days=1)


def _url(entry: str, tmp_path: Path) -> str:
    match entry:
        case "sqlite file":
            return f"sqlite:///{tmp_path / 'windlass.db'}"
        case "sqlite memory":
            return "sqlite:///:memory:"
        case _:
            return postgres.new_database()


@pytest.fixture(params=["sqlite file", "sqlite memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every entry of the seam."""
    store = open_store(_url(request.param, tmp_path))
    yield store
    store.close()


@pytest.fixture(params=["sqlite file", "postgresql"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Closes the database and opens it again: every entry of the seam that outlives its process."""
    url = _url(request.param, tmp_path)
    opened: list[Store] = []

    def opener() -> Store:
        for store in opened:
            store.close()
        opened.append(open_store(url))
        return opened[-1]

    yield opener
    opened[-1].close()


def worked_on(store: Store, name: str, *, instances: int = 3) -> tuple[JobKey, list[AttemptRef]]:
    """A job with attempts, a graph and an idempotency key."""
    known = store.run_now(lambda tx: tx.cluster_key(DEFAULT_TENANT, "default"))
    cluster = a_cluster(store) if known is None else known
    node = a_node(store, cluster, node_id=f"node-of-{name}")
    job = new_job(cluster, a_task("a", instances=instances), a_task("b", after=("a",)), name=name)

    def verb(tx: Transaction) -> tuple[JobKey, list[AttemptRef]]:
        key, _ = tx.add_job(job, now=NOW)
        tx.add_submission(DEFAULT_TENANT, f"key-of-{name}", request_digest="d", job_id=job.job_id)
        return key, claim(tx, node, want=instances)

    return store.run_now(verb)


def test_ended_jobs_are_listed_oldest_first_but_for_the_newest(store: Store) -> None:
    cluster = a_cluster(store)
    live = a_job(store, cluster, name="live")
    first, second, newest = (a_job(store, cluster, name=name) for name in ("1", "2", "3"))

    def end(tx: Transaction) -> None:
        for key in (second, first, newest):
            tx.end_job(key, JobState.FAILED, reason="", now=NOW)
        tx.delete_job(second, now=NOW + DAY)

    store.run_now(end)
    listed, following = store.run_now(lambda tx: tx.ended_jobs(after=JobKey(0), limit=10))
    assert listed == [
        EndedJob(job_key=first, job_id=JobId("id-of-1"), ended_at=NOW, deleted_at=None),
        EndedJob(job_key=second, job_id=JobId("id-of-2"), ended_at=NOW, deleted_at=NOW + DAY),
    ]
    assert following is None
    assert store.run_now(lambda tx: tx.ended_jobs(after=JobKey(0), limit=1)) == ([], live)


def deletes(store: Store, key: JobKey) -> None:
    def verb(tx: Transaction) -> None:
        tx.end_job(key, JobState.STOPPED, reason="", now=NOW)
        tx.delete_job(key, now=NOW)

    store.run_now(verb)


def test_a_job_goes_in_portions_and_its_idempotency_key_last(store: Store) -> None:
    key, refs = worked_on(store, "old")
    deletes(store, key)
    rows = 2 * len(refs) + 1 + 2 + 1  # attempts, instances, an edge, tasks, the job

    def steps(tx: Transaction) -> list[tuple[int, bool]]:
        return [tx.remove_job_rows(key, limit=4) for _ in range(3)]

    removed = store.run_now(steps)
    assert sum(number for number, _ in removed) == rows
    assert [is_gone for _, is_gone in removed] == [False, False, True]
    assert store.run_now(lambda tx: tx.attempt_views(refs)) == {}
    assert store.run_now(lambda tx: tx.find_submission(DEFAULT_TENANT, "key-of-old")) is None
    assert store.run_now(lambda tx: tx.job_task_views(key)) == []


def test_other_jobs_lose_nothing(store: Store) -> None:
    old, _ = worked_on(store, "old")
    kept, refs = worked_on(store, "kept")
    deletes(store, old)
    store.run_now(lambda tx: tx.remove_job_rows(old, limit=1000))
    assert len(store.run_now(lambda tx: tx.attempt_views(refs))) == len(refs)
    assert len(store.run_now(lambda tx: tx.job_task_views(kept))) == 2
    assert store.run_now(lambda tx: tx.find_submission(DEFAULT_TENANT, "key-of-kept")) is not None


def test_facts_go_by_age_and_in_portions(store: Store) -> None:
    fact = Fact(kind=FactKind.NODE_READY, tenant=DEFAULT_TENANT)
    store.run_now(lambda tx: tx.add_facts([fact] * 3, now=NOW))
    store.run_now(lambda tx: tx.add_facts([fact], now=NOW + DAY))
    removed = [store.run_now(lambda tx: tx.remove_facts(before=NOW + DAY, limit=2)) for _ in range(3)]
    assert removed == [2, 1, 0]
    assert store.run_now(lambda tx: tx.remove_facts(before=NOW + 2 * DAY, limit=2)) == 1


def test_jobs_that_users_do_not_see_are_unknown(store: Store) -> None:
    cluster = a_cluster(store)
    a_job(store, cluster, name="seen")
    deleted = a_job(store, cluster, name="deleted")
    deletes(store, deleted)
    asked = [JobId("id-of-seen"), JobId("id-of-deleted"), JobId("nobodys")]
    assert sorted(store.run_now(lambda tx: tx.unknown_jobs(asked))) == sorted(asked[1:])
    assert store.run_now(lambda tx: tx.count_jobs()) == 1


def test_an_incarnation_takes_every_number_with_it(open_again: Callable[[], Store]) -> None:
    store = open_again()
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, name="before")
    token = Credential(token_id="t", kind="wlj", digest="d", tenant=DEFAULT_TENANT, uses_left=3)
    lasting = Credential(token_id="l", kind="wln", digest="d", tenant=DEFAULT_TENANT)
    store.run_now(lambda tx: tx.add_credential(token, now=NOW))
    store.run_now(lambda tx: tx.add_credential(lasting, now=NOW))

    store.run_now(lambda tx: tx.begin_incarnation(5, now=NOW))
    store = open_again()

    after = a_job(store, cluster, name="after")
    (task,) = store.run_now(lambda tx: tx.job_task_views(after))
    assert store.run_now(lambda tx: tx.incarnation()) == 5
    assert min(after, task.task_key) > 5 << 32
    assert store.run_now(lambda tx: the(tx.node_view(node)).epoch) >= 5 << 32
    assert store.run_now(lambda tx: the(tx.node_view(node)).nonce) == ""
    found = [store.run_now(lambda tx, token_id=token_id: tx.credential(token_id)) for token_id in "tl"]
    assert [one is not None and one.revoked for one in found] == [True, False]
    assert store.run_now(lambda tx: tx.count_jobs()) == 2


def test_fences_of_an_incarnation_are_above_all_of_the_one_before(open_again: Callable[[], Store]) -> None:
    store = open_again()
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=2), name="job")
    (before,) = store.run_now(lambda tx: claim(tx, node, want=1))
    store.run_now(lambda tx: tx.begin_incarnation(5, now=NOW))
    store = open_again()
    (after,) = store.run_now(lambda tx: claim(tx, node, want=1, poll_seq=2))
    assert before.fence < 5 << 40 < after.fence
    assert after.task_key == before.task_key


def test_a_deleted_cluster_tells_of_which_nodes_the_credentials_are_good_no_more(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    of_node = Credential(
        token_id="n", kind="wln", digest="d", tenant=DEFAULT_TENANT, cluster_key=cluster, node_key=node
    )
    to_join = Credential(
        token_id="j", kind="wlj", digest="d", tenant=DEFAULT_TENANT, cluster_key=cluster, uses_left=3
    )
    for credential in (of_node, to_join):
        store.run_now(lambda tx, credential=credential: tx.add_credential(credential, now=NOW))  # type: ignore[misc]  # a lambda's default

    def delete(tx: Transaction) -> set[NodeKey]:
        tx.delete_cluster(cluster)
        return set(tx.wakes.changed_nodes)

    assert store.run_now(delete) == {node}
