"""Verbs and their commits on every database (`windlass_coordinator.stores.base.Store`)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.support.stored_records import (
    NOW,
    a_cluster,
    a_node,
)
from windlass_coordinator.core.records import (
    ClusterKey,
    Wakes,
)
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import (
    Store,
    Transaction,
)
from windlass_proto.errors import Conflict, InvalidRequest, Unavailable
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
    AttemptRef,
    Fence,
    JobId,
    TaskKey,
)
from windlass_proto.model.states import NodeState


@dataclass(frozen=True)
class Told:
    """A delivery of a follower."""

    heard: list[str]

    def __call__(self) -> None:
        self.heard.append("delivered")

    def take_back(self) -> None:
        self.heard.append("taken back")


# The seam itself


def test_a_url_of_an_unknown_kind_names_one_that_is_known() -> None:
    with pytest.raises(InvalidRequest, match="no such kind of database: 'mysql'; must be like sqlite:"):
        open_store("mysql://x")


# Verbs and their commits


def test_a_verb_gives_back_what_it_returns(store: Store) -> None:
    assert store.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == []


async def test_a_reader_sees_what_was_acknowledged(store: Store) -> None:
    await store.run(lambda tx: tx.add_cluster(DEFAULT_TENANT, "c", description="", now=NOW))

    clusters = await store.read(lambda queries: queries.list_clusters(DEFAULT_TENANT))

    assert [cluster.name for cluster in clusters] == ["c"]


async def test_a_verb_that_fails_writes_nothing_and_tells_its_caller(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        tx.add_cluster(DEFAULT_TENANT, "half", description="", now=NOW)
        tx.wakes.jobs.add(JobId("job"))
        raise Conflict("not like this")

    with pytest.raises(Conflict, match="not like this"):
        await store.run(fails)
    assert await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == []


async def test_one_failing_verb_does_not_harm_those_beside_it(store: Store) -> None:
    def add(number: int) -> Callable[[Transaction], int]:
        def verb(tx: Transaction) -> int:
            tx.add_cluster(DEFAULT_TENANT, f"c{number:03}", description="", now=NOW)
            if number % 3 == 0:
                raise Conflict(f"{number} is divisible by three")
            return number

        return verb

    outcomes = await asyncio.gather(*(store.run(add(n)) for n in range(600)), return_exceptions=True)

    good = [n for n in range(600) if n % 3]
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == good
    refused = [outcome for outcome in outcomes if not isinstance(outcome, int)]
    assert {type(outcome) for outcome in refused} == {Conflict}
    assert await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == [f"c{n:03}" for n in good]


async def test_a_broken_rule_of_the_database_is_one_verbs_failure_too(store: Store) -> None:
    def twice(tx: Transaction) -> None:
        for _ in range(2):
            tx.add_cluster(DEFAULT_TENANT, "same", description="", now=NOW)

    def too_large(tx: Transaction) -> object:
        return tx.attempt_views([AttemptRef(task_key=TaskKey(2**64), index=0, attempt=1, fence=Fence(1))])

    good, bad, worse = await asyncio.gather(
        store.run(lambda tx: tx.add_cluster(DEFAULT_TENANT, "good", description="", now=NOW)),
        store.run(twice),
        store.run(too_large),
        return_exceptions=True,
    )

    assert isinstance(good, int)
    assert isinstance(bad, Exception)
    assert isinstance(worse, Exception)
    assert await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == ["good"]


def test_verbs_may_come_from_many_threads(store: Store) -> None:
    def add(number: int) -> object:
        return store.run_now(
            lambda tx: tx.add_cluster(DEFAULT_TENANT, f"c{number:03}", description="", now=NOW)
        )

    with ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(add, range(100)))

    assert len(set(keys)) == 100


def test_a_verb_sees_what_the_one_before_it_wrote(store: Store) -> None:
    keys = [a_cluster(store, f"c{n}") for n in range(5)]

    assert [store.run_now(lambda tx, n=n: tx.cluster_key(DEFAULT_TENANT, f"c{n}")) for n in range(5)] == keys  # type: ignore[misc]  # mypy cannot infer a lambda's default


async def test_a_caller_that_goes_away_does_not_stop_its_verb(store: Store) -> None:
    calling = asyncio.ensure_future(
        store.run(lambda tx: tx.add_cluster(DEFAULT_TENANT, "c", description="", now=NOW))
    )
    await asyncio.sleep(0)
    calling.cancel()

    async with asyncio.timeout(30):
        while await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT)) != ["c"]:
            await asyncio.sleep(0)


async def test_followers_run_in_a_commit_and_are_told_after_it(store: Store) -> None:
    heard: list[str] = []
    told: asyncio.Queue[Wakes] = asyncio.Queue()

    def follow(tx: Transaction, wakes: Wakes) -> list[Told]:
        heard.append(f"follow {sorted(wakes.clusters)} {tx.cluster_names(DEFAULT_TENANT)}")
        tx.add_cluster(DEFAULT_TENANT, "by-follower", description="", now=NOW)
        return [Told(heard)]

    store.listen(follow=follow, after_commit=told.put_nowait)

    def verb(tx: Transaction) -> None:
        key = tx.add_cluster(DEFAULT_TENANT, "by-verb", description="", now=NOW)
        tx.wakes.clusters.add(key)
        tx.wakes.jobs.add(JobId("job"))

    await store.run(verb)
    async with asyncio.timeout(30):
        assert (await told.get()).jobs == {"job"}
        while "delivered" not in heard:
            await asyncio.sleep(0)

    assert heard == ["follow [1] ['by-verb']", "delivered"]
    assert await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == ["by-follower", "by-verb"]


async def test_nobody_follows_a_verb_that_failed(store: Store) -> None:
    followed: list[Wakes] = []

    def follow(tx: Transaction, wakes: Wakes) -> list[Told]:
        followed.append(wakes)
        return []

    store.listen(follow=follow, after_commit=lambda wakes: None)

    def fails(tx: Transaction) -> None:
        tx.wakes.clusters.add(ClusterKey(1))
        raise Conflict("no")

    def works(tx: Transaction) -> None:
        tx.wakes.clusters.add(ClusterKey(2))

    with pytest.raises(Conflict):
        await store.run(fails)
    await store.run(works)
    async with asyncio.timeout(30):
        while not followed:
            await asyncio.sleep(0)
    assert [wakes.clusters for wakes in followed] == [{2}]


async def test_what_a_follower_breaks_is_not_stored_and_the_next_one_is_served(store: Store) -> None:
    broken: list[str] = []

    def breaks(tx: Transaction, wakes: Wakes) -> list[Told]:
        broken.append(the_only(tx.cluster_names(DEFAULT_TENANT)))
        tx.add_cluster(DEFAULT_TENANT, "by-follower", description="", now=NOW)
        raise ValueError("a bug in a follower")

    def verb(name: str) -> Callable[[Transaction], None]:
        def add(tx: Transaction) -> None:
            tx.wakes.clusters.add(tx.add_cluster(DEFAULT_TENANT, name, description="", now=NOW))

        return add

    store.listen(follow=breaks, after_commit=lambda wakes: None)
    try:
        await store.run(verb("c"))
    except Unavailable:
        pass  # it was to be stored together with what its follower breaks
    async with asyncio.timeout(30):
        while not broken:
            await asyncio.sleep(0)
    heard: list[str] = []
    store.listen(follow=lambda tx, wakes: [Told(heard)], after_commit=lambda wakes: None)
    await store.run(verb("d"))
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.sleep(0)
    assert "by-follower" not in await store.run(lambda tx: tx.cluster_names(DEFAULT_TENANT))


async def test_whoever_changes_a_nodes_session_or_state_says_so(store: Store) -> None:
    key = a_node(store, a_cluster(store))
    node = store.run_now(lambda tx: tx.node_view(key))
    assert node is not None
    changed = []

    async def change(verb: Callable[[Transaction], None]) -> None:
        def noted(tx: Transaction) -> None:
            verb(tx)
            changed.append(tx.wakes.changed_nodes)

        await store.run(noted)

    await change(lambda tx: tx.set_node_state(key, NodeState.SILENT, now=NOW))
    await change(lambda tx: tx.set_node_wish(key, None, reason="no disk", drain_by=None))
    await change(lambda tx: tx.end_session(node))
    await change(lambda tx: tx.note_seen({key: NOW}))

    assert changed == [{key}, {key}, {key}, set()]


def the_only(found: list[str]) -> str:
    (one,) = found
    return one


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    store.close()
    store.close()

    for call in (store.run(lambda tx: None), store.read(lambda queries: None)):
        with pytest.raises(Unavailable, match="the store is closed"):
            await call
    with pytest.raises(Unavailable):
        store.run_now(lambda tx: None)
