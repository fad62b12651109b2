"""The verbs alone, on a durable SQLite store without gRPC: what they cost, also when very many tasks wait."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from benchmarks.programs import BenchFailed
from benchmarks.system import TRUE, many, single_tasks
from windlass_coordinator.core.records import Claimed, NodeView
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.claim import claim
from windlass_coordinator.engine.report import report
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.submit import Submission, submit
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.model.events import AttemptEvent, Exited
from windlass_proto.model.ids import (
    DEFAULT_CLUSTER,
    DEFAULT_TENANT,
    AttemptRef,
    Fence,
    JobId,
    NodeId,
    NodeKey,
)
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.status import NodeFacts
from windlass_proto.model.verdicts import EventVerdict

_BATCH = 256
_INSTANCES = 10_000
_SINGLE_TASKS = 5_000
_JOBS = 10
_BACKLOG, _SMALL_BACKLOG = 100_000, 10_000
_CLAIMS = 300
_CAPACITY = 1024
_RULES = Rules(retry=RetryPolicy(), jitter=lambda: 0.5)
_SUCCEEDED = Exited(code=0, signal=None, ran_for_us=500)


class VerbStore:
    """A store with one node that has room for everything."""

    def __init__(self, directory: Path) -> None:
        self._store: Store = open_store(f"sqlite:///{directory / 'windlass.db'}")
        self._jobs = 0
        self._polls = 0
        self._node_key = self._store.run_now(_with_node)

    def __enter__(self) -> "VerbStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def submit(self, spec: JobSpec) -> None:
        self._jobs += 1
        submission = Submission(
            tenant=DEFAULT_TENANT, spec=spec, idempotency_key="", job_id=JobId(f"job-{self._jobs}")
        )
        self._store.run_now(lambda tx: submit(tx, submission, now=_now()))

    def claim(self, want: int) -> list[Claimed]:
        self._polls += 1
        poll_seq = self._polls
        return self._store.run_now(
            lambda tx: claim(tx, _node(tx, self._node_key), want=want, poll_seq=poll_seq, now=_now())
        )

    def report(self, events: Sequence[AttemptEvent]) -> None:
        verdicts = self._store.run_now(
            lambda tx: report(tx, _node(tx, self._node_key), events, rules=_RULES, now=_now())
        )
        if set(verdicts) != {EventVerdict.ACCEPTED}:
            raise BenchFailed(f"results were refused: {set(verdicts)}")


def measure_verbs(bench: Bench) -> Iterator[Figure]:
    """Claim + report with batches of 256: CPU per instance, commits included."""
    raw, ours, single = [], [], []
    with VerbStore(bench.scratch("verbs")) as store:
        _verbs_cpu_us(store, many("warm", TRUE, instances=2000))
        for number in range(max(bench.rounds, 3)):
            raw.append(_raw_cpu_us(bench.scratch("raw")))
            ours.append(_verbs_cpu_us(store, many("wide", TRUE, instances=_INSTANCES)))
            single.append(_verbs_cpu_us(store, single_tasks("single", TRUE, tasks=_SINGLE_TASKS)))
            bench.say(f"verbs {number + 1}: {ours[-1]:.1f} us, tasks of one instance {single[-1]:.1f} us")
    yield of_rounds(
        "verbs_alone",
        ours,
        unit="us of CPU/instance",
        reference=Reference(name="raw_sqlite_insert_and_update", value=median(raw)),
        batch=_BATCH,
        one_instance_tasks_us=median(single),
    )


def measure_backlog(bench: Bench) -> Iterator[Figure]:
    """What one claim of one instance costs when so many tasks of one instance wait."""
    with (
        VerbStore(bench.scratch("backlog")) as large,
        VerbStore(bench.scratch("backlog")) as small,
    ):
        for store, tasks in ((large, _BACKLOG), (small, _SMALL_BACKLOG)):
            for priority in range(_JOBS):
                spec = single_tasks(f"backlog-{priority}", TRUE, tasks=tasks // _JOBS)
                store.submit(spec)
            bench.say(f"{tasks} tasks wait")
        costs: dict[tuple[int, bool], list[float]] = {}
        for want in (1, 64):
            for is_large in (True, False) * max(bench.rounds, 3):
                store = large if is_large else small
                costs.setdefault((want, is_large), []).append(_claim_cpu_us(store, want))
    yield of_rounds(
        "claim_backlog",
        costs[1, True],
        unit="us of CPU/claim",
        reference=Reference(name=f"backlog_of_{_SMALL_BACKLOG}", value=median(costs[1, False])),
        backlog=_BACKLOG,
        claim_of_64_us=median(costs[64, True]),
        claim_of_64_reference_us=median(costs[64, False]),
        claim_of_64_ratio=median(costs[64, True]) / median(costs[64, False]),
    )


def _verbs_cpu_us(store: VerbStore, spec: JobSpec) -> float:
    store.submit(spec)
    cpu_s, done = 0.0, 0
    while True:
        claimed: list[Claimed] = []
        cpu_s += _cpu_s_of(lambda: claimed.extend(store.claim(_BATCH)))  # noqa: B023 - called at once
        if not claimed:
            return cpu_s / done * 1e6
        events = [event for batch in claimed for event in _results(batch)]
        cpu_s += _cpu_s_of(lambda: store.report(events))  # noqa: B023 - called at once
        done += len(events)


def _claim_cpu_us(store: VerbStore, want: int) -> float:
    claims = _CLAIMS // want + 1
    cpu_s = 0.0
    for _ in range(claims):
        claimed: list[Claimed] = []
        cpu_s += _cpu_s_of(lambda: claimed.extend(store.claim(want)))  # noqa: B023 - called at once
        store.report([event for batch in claimed for event in _results(batch)])
    return cpu_s / claims * 1e6


def _cpu_s_of(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _results(batch: Claimed) -> Iterator[AttemptEvent]:
    for index, attempt, fence in zip(batch.index, batch.attempt, batch.fence, strict=True):
        ref = AttemptRef(task_key=batch.task.task_key, index=index, attempt=attempt, fence=Fence(fence))
        yield AttemptEvent(ref=ref, seq=1, what=_SUCCEEDED)


def _raw_cpu_us(directory: Path) -> float:
    """The least that a durable claim and report can cost here: a row written, and written again."""
    database = sqlite3.connect(directory / "raw.db", isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE attempts (id INTEGER PRIMARY KEY, state TEXT, node INTEGER, code INTEGER)"
        )
        start = time.process_time()
        for first in range(0, _INSTANCES, _BATCH):
            ids = range(first, first + _BATCH)
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO attempts VALUES (?, 'LEASED', 1, NULL)", ((i,) for i in ids))
            database.execute("COMMIT")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "UPDATE attempts SET state = 'SUCCEEDED', code = 0 WHERE id = ? AND state = 'LEASED'",
                ((i,) for i in ids),
            )
            database.execute("COMMIT")
        return (time.process_time() - start) / _INSTANCES * 1e6
    finally:
        database.close()


def _with_node(tx: Transaction) -> NodeKey:
    facts = NodeFacts(
        name="node",
        slots=_CAPACITY,
        cpu=float(_CAPACITY),
        memory_bytes=1 << 40,
        agent_version="",
        os="",
        containment="",
    )
    known = tx.cluster_key(DEFAULT_TENANT, DEFAULT_CLUSTER)
    cluster = known or tx.add_cluster(DEFAULT_TENANT, DEFAULT_CLUSTER, description="", now=_now())
    node_key = tx.add_node(NodeId("node-1"), facts, tenant=DEFAULT_TENANT, cluster_key=cluster, now=_now())
    tx.open_session(
        _node(tx, node_key),
        facts,
        state_id="state",
        boot_id="boot",
        epoch=1,
        nonce="nonce",
        last_nonce="",
        now=_now(),
    )
    return node_key


def _node(tx: Transaction, node_key: NodeKey) -> NodeView:
    node = tx.node_view(node_key)
    if node is None:
        raise BenchFailed(f"node {node_key} is not in the store")
    return node


def _now() -> datetime:
    return datetime.now(UTC)
