"""What a database that several coordinators share must do besides: PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from tests.support import postgres
from tests.support.stored_records import FACTS, NOW, a_cluster, a_job, a_node, a_task, claim, the
from windlass_coordinator.core.records import ClusterKey, JobKey, Wakes
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.nodes import drain
from windlass_coordinator.engine.session import OpenRequest, open_session
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.sweep import mark_silent
from windlass_coordinator.stores import is_shared, open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_coordinator.stores.machines import Credential, RoleLost
from windlass_coordinator.stores.postgres.sessions import connect
from windlass_proto.errors import Conflict, Denied, Unavailable
from windlass_proto.model.ids import DEFAULT_TENANT, JobId, NodeKey
from windlass_proto.model.resources import Resources
from windlass_proto.model.states import JobState, NodeState


@pytest.fixture
def url() -> str:
    return postgres.new_database()


@pytest.fixture
def two(url: str) -> Iterator[tuple[Store, Store]]:
    stores = (open_store(url), open_store(url))
    yield stores
    for store in stores:
        store.close()


def test_only_sqlite_belongs_to_one_coordinator() -> None:
    assert is_shared("postgresql://x/y")
    assert not is_shared("sqlite:////x.db")


# Roles


def test_a_role_is_taken_by_one_and_a_stale_term_writes_nothing(two: tuple[Store, Store]) -> None:
    here, there = two
    role = here.run_now(lambda tx: tx.take_role("sweeper", "here", seen=None))
    assert role is not None
    assert there.run_now(lambda tx: tx.take_role("sweeper", "there", seen=None)) is None
    seen = there.run_now(lambda tx: tx.role("sweeper"))
    assert here.run_now(lambda tx: tx.renew_role(role))
    assert there.run_now(lambda tx: tx.take_role("sweeper", "there", seen=seen)) is None, "its beat has grown"

    def late(tx: Transaction) -> None:
        tx.check_role(role)
        tx.add_cluster(DEFAULT_TENANT, "late", description="", now=NOW)

    seen = there.run_now(lambda tx: tx.role("sweeper"))
    successor = there.run_now(lambda tx: tx.take_role("sweeper", "there", seen=seen))

    assert successor is not None
    assert successor.term == role.term + 1
    with pytest.raises(RoleLost):
        here.run_now(late)
    assert not here.run_now(lambda tx: tx.renew_role(role))
    assert here.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT)) == []


# Signals


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator["asyncio.Queue[Wakes]"]:
    heard: asyncio.Queue[Wakes] = asyncio.Queue()
    store.listen(follow=lambda tx, wakes: [], after_commit=heard.put_nowait)
    await store.run(lambda tx: None)  # from here on it knows the event loop
    async with asyncio.timeout(30):
        yield heard


def waking(*, jobs: int) -> Wakes:
    return Wakes(
        clusters={ClusterKey(7)},
        nodes={NodeKey(8)},
        jobs={JobId(f"job-{number:032}") for number in range(jobs)},
        ended_jobs={JobId(f"job-{0:032}")},
        due=NOW,
    )


def wakes_and_writes(wakes: Wakes, name: str) -> Callable[[Transaction], None]:
    def verb(tx: Transaction) -> None:
        tx.add_cluster(DEFAULT_TENANT, name, description="", now=NOW)
        tx.wakes.merge(wakes)

    return verb


async def test_what_a_commit_wakes_is_heard_by_the_others(two: tuple[Store, Store]) -> None:
    here, there = two
    async with listening(there) as heard:
        await here.run(wakes_and_writes(waking(jobs=3), "c"))
        assert await heard.get() == waking(jobs=3)


async def test_what_is_too_much_for_one_signal_wakes_everything(two: tuple[Store, Store]) -> None:
    here, there = two
    async with listening(there) as heard:
        await here.run(wakes_and_writes(waking(jobs=1000), "c"))
        assert await heard.get() == Wakes(everything=True)


async def test_a_verb_that_fails_or_writes_nothing_wakes_no_other(two: tuple[Store, Store]) -> None:
    here, there = two

    def fails(tx: Transaction) -> None:
        tx.add_cluster(DEFAULT_TENANT, "half", description="", now=NOW)
        tx.wakes.jobs.add(JobId("never"))
        raise Conflict("not like this")

    async with listening(there) as heard:
        with pytest.raises(Conflict):
            await here.run(fails)
        await here.run(lambda tx: tx.wakes.nodes.add(NodeKey(1)))
        await here.run(wakes_and_writes(waking(jobs=1), "c"))
        assert await heard.get() == waking(jobs=1)


async def test_who_could_not_listen_for_a_while_wakes_everything_once(url: str) -> None:
    store = open_store(url)
    try:
        async with listening(store) as heard:
            with psycopg.connect(url, autocommit=True) as connection:
                ended = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                ).fetchall()
            assert ended == [(True,)]
            assert await heard.get() == Wakes(everything=True)
    finally:
        store.close()


# Races


def test_a_use_of_a_token_that_is_taken_meanwhile_is_seen(two: tuple[Store, Store]) -> None:
    token = Credential(token_id="t", kind="wlj", digest="d", tenant=DEFAULT_TENANT, uses_left=1)
    two[0].run_now(lambda tx: tx.add_credential(token, now=NOW))
    looks = []

    def use(tx: Transaction) -> None:
        found = tx.credential("t")
        assert found is not None
        looks.append(found.uses_left)
        if not found.uses_left:
            raise Denied("used up")
        if len(looks) == 1:  # somebody else is faster, between our look and our use
            two[1].run_now(lambda other: other.use_credential("t"))
        tx.use_credential("t")

    with pytest.raises(Denied, match="used up"):
        two[0].run_now(use)
    assert looks == [1, 0]


def test_two_claims_at_once_for_one_node_do_not_get_the_same_gpu(two: tuple[Store, Store]) -> None:
    """Its poll went to another coordinator when the first one was slow."""
    node_key = a_node(two[0], cluster := a_cluster(two[0]))
    for name in ("a", "b"):
        a_job(two[0], cluster, a_task(name, resources=Resources(gpus=FACTS.gpus)), name=name)

    def claim_both(tx: Transaction) -> list[int]:
        node = the(tx.node_view(node_key))
        here, there = tx.claimable(node, limit=2, gpus=FACTS.gpus)
        claimed = tx.claim(node, [(here, 0, 1)], poll_seq=1, now=NOW)
        meanwhile = two[1].run_now(lambda tx: tx.claim(node, [(there, 0, 1)], poll_seq=1, now=NOW))
        return [len(claimed), len(meanwhile)]

    assert two[0].run_now(claim_both) == [1, 0]
    assert two[1].run_now(lambda tx: tx.gpus_in_use(node_key)) == FACTS.gpus


def test_a_drain_that_comes_while_a_silent_node_returns_is_seen(two: tuple[Store, Store]) -> None:
    node_key = a_node(two[0], a_cluster(two[0]))
    two[0].run_now(lambda tx: mark_silent(tx, node_key, now=NOW))
    request = OpenRequest(state_id="state", boot_id="boot", last_nonce="nonce", facts=FACTS, inventory=())
    rules = Rules(retry=RetryPolicy(), jitter=lambda: 0.5)
    looks = []

    def come_back(tx: Transaction) -> None:
        node = the(tx.node_view(node_key))
        looks.append(node.wish)
        if len(looks) == 1:  # its operator is faster, between our look and our session
            two[1].run_now(lambda tx: drain(tx, DEFAULT_TENANT, node.node_id, within=None, now=NOW))
        open_session(tx, node, request, nonce="new", logs_stored=lambda _: True, rules=rules, now=NOW)

    two[0].run_now(come_back)

    assert looks == [None, NodeState.DRAINING]
    assert two[0].run_now(lambda tx: the(tx.node_view(node_key)).state) is NodeState.DRAINING


def test_a_job_that_is_restarted_while_it_is_to_be_forgotten_stays(two: tuple[Store, Store]) -> None:
    cluster = a_cluster(two[0])
    job_key, newest = a_job(two[0], cluster), a_job(two[0], cluster, name="newest")
    for key in (job_key, newest):
        two[0].run_now(lambda tx, key=key: tx.end_job(key, JobState.STOPPED, reason="", now=NOW))  # type: ignore[misc]  # mypy cannot infer a lambda's default

    def forget(tx: Transaction) -> tuple[int, bool]:
        (ended, *_), _ = tx.ended_jobs(after=JobKey(0), limit=10)
        two[1].run_now(lambda tx: tx.restart_job(ended.job_key, all_instances=True, now=NOW))
        tx.delete_job(ended.job_key, now=NOW)
        return tx.remove_job_rows(ended.job_key, limit=1000)

    assert two[0].run_now(forget) == (0, False)
    (job,) = two[0].run_now(lambda tx: tx.job_views([job_key])).values()
    assert job.state is JobState.WAITING
    assert two[0].run_now(lambda tx: len(tx.job_task_views(job_key))) == 1


# What outlives a process, and what a database must not be taken for


def test_everything_is_there_when_it_is_opened_again(url: str) -> None:
    first = open_store(url)
    cluster = a_cluster(first)
    node = a_node(first, cluster)
    job = a_job(first, cluster, a_task("a", instances=20), a_task("b", after=("a",)))
    refs = first.run_now(lambda tx: claim(tx, node, want=20, poll_seq=5))

    def look(store: Store) -> list[object]:
        return [
            store.run_now(lambda tx: tx.incarnation()),
            store.run_now(lambda tx: tx.node_view(node)),
            store.run_now(lambda tx: tx.job_task_views(job)),
            store.run_now(lambda tx: tx.job_edges(job)),
            store.run_now(lambda tx: tx.attempt_views(refs)),
            store.run_now(lambda tx: tx.leased_by_poll(the(tx.node_view(node)), poll_seq=5)),
        ]

    before = look(first)
    first.close()
    again = open_store(url)
    assert look(again) == before
    again.close()


PROGRAM = """
import sys
from datetime import UTC, datetime
from windlass_coordinator.stores import open_store
from windlass_proto.model.ids import DEFAULT_TENANT

store = open_store(sys.argv[1])
for number in range(1_000_000):
    now = datetime.now(UTC)
    store.run_now(lambda tx: tx.add_cluster(DEFAULT_TENANT, f"c{number}", description="", now=now))
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    with program.stdout as lines:
        acknowledged = [int(next(lines)) for _ in range(30)]
        program.kill()
        acknowledged += [int(line) for line in lines if line.endswith("\n")]
    program.wait(10)
    store = open_store(url)
    stored = store.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT))
    store.close()
    assert {f"c{number}" for number in acknowledged} <= set(stored)
    assert len(stored) - len(acknowledged) in (0, 1), "at most the one whose reply was cut off"


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("CREATE TABLE recipes (name text)", "holds tables that are not Windlass's"),
        (
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('9999')",
            "has schema 9999, unknown to this version .*: start the newer version",
        ),
    ],
    ids=["another program's", "a newer version's"],
)
def test_what_is_not_ours_is_refused_and_left_as_it_was(statement: str, refusal: str) -> None:
    url = postgres.shared_server().new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())

    with pytest.raises(Conflict, match=refusal):
        open_store(url)

    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (1,)


def test_a_connection_to_a_machine_that_has_vanished_is_given_up_in_half_a_minute(url: str) -> None:
    """Who only listens would hear of nothing until the system gives up, after two hours."""
    with connect(url) as connection:
        asked = connection.info.get_parameters()

    idle, interval, count = (int(asked[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 30
    assert int(asked["tcp_user_timeout"]) <= 30_000


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass_coordinator.stores.postgres.opening._WAIT_FOR_SERVER_S", 0.1)
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_store("postgresql://nobody@127.0.0.1:1/nothing")


def test_what_is_missing_for_postgresql_is_named() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from windlass_coordinator.stores import open_store\n"
        "open_store('postgresql://x/y')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'windlass[postgres]'" in done.stderr
