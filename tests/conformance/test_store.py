"""What every database behind the coordinator must do (`windlass_coordinator.stores.base`)."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.stored_records import (
    NOW,
    SOMEBODY_ELSE,
    a_cluster,
    a_job,
    a_node,
    a_task,
    claim,
    the,
)
from windlass_coordinator.core.records import (
    ClusterKey,
    Fact,
    TaskBump,
    Wakes,
)
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import (
    AttemptEnd,
    Credential,
    InstanceChange,
    Store,
    Transaction,
)
from windlass_proto.errors import Conflict, InvalidRequest, Unavailable
from windlass_proto.model.events import Exited
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
    AttemptRef,
    ClusterName,
    Fence,
    JobId,
    TaskKey,
)
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import AttemptState, InstanceState, JobState, NodeState, TaskState


@pytest.fixture(params=["sqlite file", "sqlite memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every entry of the seam."""
    store = open_store(_url(request.param, tmp_path))
    yield store
    store.close()


def _url(entry: str, tmp_path: Path) -> str:
    match entry:
        case "sqlite file":
            return f"sqlite:///{tmp_path / 'windlass.db'}"
        case "sqlite memory":
            return "sqlite:///:memory:"
        case _:
            return postgres.new_database()


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


# What is stored


def test_an_instance_comes_into_being_when_it_is_claimed(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=1_000_000))

    refs = store.run_now(lambda tx: claim(tx, node, want=100))

    assert [(ref.index, ref.attempt) for ref in refs] == [(index, 1) for index in range(100)]
    assert store.run_now(lambda tx: len(tx.held_attempts(node))) == 100
    (task,) = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=1)))
    assert (task.next_index, task.ready_again, task.instance_count) == (100, 0, 1_000_000)


@pytest.mark.parametrize("want", [1, 7, 8, 9])
def test_a_large_claim_and_many_small_ones_are_the_same(store: Store, want: int) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=18))

    refs = [
        ref
        for seq in range(-(-18 // want))
        for ref in store.run_now(lambda tx, seq=seq: claim(tx, node, want=want, poll_seq=seq))  # type: ignore[misc]  # as above
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

    claimable = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=10)))

    assert [task.job_id for task in claimable] == ["id-of-b", "id-of-c", "id-of-a"]
    assert store.run_now(lambda tx: len(list(tx.claimable(the(tx.node_view(node)), limit=2)))) == 2


def test_what_does_not_fit_a_node_or_is_not_of_its_cluster_cannot_be_claimed(store: Store) -> None:
    cluster, other = a_cluster(store), a_cluster(store, "other")
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("large", resources=Resources(slots=5)), name="large")
    a_job(store, other, a_task("theirs", cluster=ClusterName("other")), name="theirs")
    a_job(
        store, cluster, a_task("fits", resources=Resources(slots=4, cpu=4, memory_bytes=1 << 30)), name="fits"
    )

    claimable = store.run_now(lambda tx: list(tx.claimable(the(tx.node_view(node)), limit=10)))

    assert [task.name for task in claimable] == ["fits"]


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


def test_attempts_are_found_whether_they_lie_close_together_or_far_apart(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("a", instances=50), a_task("b", instances=3))
    refs = store.run_now(lambda tx: claim(tx, node, want=50))
    stranger = AttemptRef(task_key=TaskKey(99), index=0, attempt=1, fence=refs[0].fence)

    for asked in (refs, refs[::20], [refs[0]], [refs[49], stranger, refs[52]], []):
        views = store.run_now(lambda tx, asked=asked: tx.attempt_views(asked))  # type: ignore[misc]  # as above
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


async def test_somebody_elses_job_is_not_there(store: Store) -> None:
    cluster = a_cluster(store)
    a_job(store, cluster)
    job_id = JobId("id-of-job")

    assert await store.run(lambda tx: tx.job_view(job_id, tenant=SOMEBODY_ELSE)) is None
    assert await store.run(lambda tx: tx.job_spec(job_id, tenant=SOMEBODY_ELSE)) is None
    assert await store.read(lambda q: q.job_status(job_id, tenant=SOMEBODY_ELSE)) is None
    listed = await store.read(
        lambda q: q.list_jobs(SOMEBODY_ELSE, states=(), name_contains="", limit=9, before=None)
    )
    assert listed == ([], None)
    instances = await store.read(
        lambda q: q.list_instances(
            job_id, tenant=SOMEBODY_ELSE, task="", index=None, limit=9, after=None, all_attempts=False
        )
    )
    assert instances is None


async def test_listings_go_on_where_the_last_page_ended(store: Store) -> None:
    cluster = a_cluster(store)
    for number in range(5):
        a_job(store, cluster, name=f"job-{number}")
    pages, before = [], None
    while True:
        jobs, before = await store.read(
            lambda q, before=before: q.list_jobs(  # type: ignore[misc]  # as above
                DEFAULT_TENANT, states=(), name_contains="", limit=2, before=before
            )
        )
        pages.append([job.name for job in jobs])
        if before is None:
            break

    assert pages == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]


@pytest.mark.parametrize(
    ("text", "found"), [("50%", ["50%_x"]), ("%", ["50%_x"]), ("_", ["50%_x"]), ("'", [])]
)
async def test_a_filter_is_text_not_a_pattern(store: Store, text: str, found: list[str]) -> None:
    cluster = a_cluster(store)
    for name in ("50%_x", "500x"):
        a_job(store, cluster, name=name)

    jobs, _ = await store.read(
        lambda q: q.list_jobs(DEFAULT_TENANT, states=(), name_contains=text, limit=9, before=None)
    )

    assert [job.name for job in jobs] == found


async def test_instances_are_listed_by_task_and_index(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("b", instances=3), a_task("a", instances=2))
    await store.run(lambda tx: claim(tx, node, want=3))
    seen, after = [], None
    while True:
        found = await store.read(
            lambda q, after=after: q.list_instances(  # type: ignore[misc]  # as above
                JobId("id-of-job"),
                tenant=DEFAULT_TENANT,
                task="",
                index=None,
                limit=2,
                after=after,
                all_attempts=False,
            )
        )
        assert found is not None
        seen += [(instance.task, instance.index) for instance in found[0]]
        after = found[1]
        if after is None:
            break

    assert seen == [("b", 0), ("b", 1), ("b", 2), ("a", 0), ("a", 1)]


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
