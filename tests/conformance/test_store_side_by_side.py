"""Verbs of several coordinators at once on one PostgreSQL database: none notices that it is not alone."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.support import postgres
from tests.support.invariants import InvariantWatch
from tests.support.stored_records import FACTS, a_cluster, a_task, the
from windlass_coordinator.core.records import ClusterKey
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.claim import claim
from windlass_coordinator.engine.report import report
from windlass_coordinator.engine.revoke import release
from windlass_coordinator.engine.session import OpenRequest, open_session
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.steer import delete, restart, stop
from windlass_coordinator.engine.submit import Submission, submit
from windlass_coordinator.engine.sweep import mark_silent, ready_due, replace_attempts
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.errors import Conflict, Denied, NotFound
from windlass_proto.model.events import AttemptEvent, Exited, Started
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef, Fence, JobId, NodeId, NodeKey
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import JobSpec

POLICY = RetryPolicy(base=timedelta(milliseconds=1), ceiling=timedelta(milliseconds=5), infra_limit=1000)
RULES = Rules(retry=POLICY, jitter=random.random)
SECONDS = 4.0
NODES = 6
THREADS = 10


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Crowd:
    """Threads that do everything that coordinators do, on a few jobs and nodes, so that they meet."""

    stores: Sequence[Store]
    cluster: ClusterKey
    nodes: list[NodeKey] = field(default_factory=list)
    nonces: dict[NodeKey, str] = field(default_factory=dict)
    jobs: list[JobId] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(THREADS))
    """Who does something has one; who wants quiet has all."""
    may_go: threading.Event = field(default_factory=threading.Event)

    def keep_doing(self, seed: int, act: Callable[[random.Random, Store], None]) -> threading.Thread:
        chance = random.Random(seed)

        def run() -> None:
            while not self.is_over:
                try:
                    self.may_go.wait()
                    with self.turns:
                        act(chance, chance.choice(self.stores))
                except (Conflict, NotFound, Denied):
                    continue  # somebody else was first
                except BaseException as error:
                    self.errors.append(error)
                    raise
                with self.lock:
                    self.done[act.__name__] = self.done.get(act.__name__, 0) + 1

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def submits(self, chance: random.Random, store: Store) -> None:
        time.sleep(0.05 * chance.random())
        width = chance.randint(1, 4)
        tasks = [
            a_task(
                f"t{n}",
                instances=chance.randint(1, 30),
                max_retries=1,
                resources=Resources(gpus=chance.choice((0, 0, 1, 2))),
            )
            for n in range(width)
        ]
        tasks.append(a_task("last", after=tuple(f"t{n}" for n in range(width))))
        chance.shuffle(tasks)
        request = Submission(
            tenant=DEFAULT_TENANT,
            spec=JobSpec(name="job", tasks=tuple(tasks), fail_on_instance_failure=chance.random() < 0.7),
            # Two who submit with one key at once get one job.
            idempotency_key=f"key-{len(self.jobs)}",
            job_id=JobId(f"job-{chance.getrandbits(64):x}"),
        )
        job_id = store.run_now(lambda tx: submit(tx, request, now=now())).job_id
        with self.lock:
            if job_id not in self.jobs:
                self.jobs.append(job_id)

    def works(self, chance: random.Random, store: Store) -> None:
        node_key = chance.choice(self.nodes)
        seq = chance.getrandbits(40)
        want = chance.randint(1, 20)
        claimed = store.run_now(
            lambda tx: claim(tx, the(tx.node_view(node_key)), want=want, poll_seq=seq, now=now())
        )
        refs = [
            AttemptRef(task_key=c.task.task_key, index=i, attempt=a, fence=Fence(f))
            for c in claimed
            for i, a, f in zip(c.index, c.attempt, c.fence, strict=True)
        ]
        if not refs:
            return
        kept = [ref for ref in refs if chance.random() < 0.9]
        back = [ref for ref in refs if ref not in kept]
        store.run_now(lambda tx: release(tx, the(tx.node_view(node_key)), back, rules=RULES, now=now()))
        for what in (_started, _ended):
            events = [AttemptEvent(ref=ref, seq=1, what=what(chance)) for ref in kept]
            # Said twice, through two coordinators: a reply was lost.
            for other in self.stores:
                other.run_now(
                    lambda tx, events=events: report(  # type: ignore[misc]  # mypy cannot infer a lambda's default
                        tx, the(tx.node_view(node_key)), events, rules=RULES, now=now()
                    )
                )

    def steers(self, chance: random.Random, store: Store) -> None:
        time.sleep(0.02 * chance.random())
        job_id = chance.choice(self.jobs or [JobId("none-yet")])
        if chance.random() < 0.8:
            store.run_now(lambda tx: stop(tx, DEFAULT_TENANT, job_id, now=now()))
        else:
            store.run_now(lambda tx: delete(tx, DEFAULT_TENANT, job_id, stop_first=True, now=now()))

    def restart_all(self) -> None:
        """In quiet: who looks at the tables before and after must see what was restarted."""
        for job_id in self.jobs:
            try:
                self.stores[0].run_now(
                    lambda tx, job_id=job_id: restart(  # type: ignore[misc]  # a default in a lambda
                        tx, DEFAULT_TENANT, job_id, all_instances=False, now=now()
                    )
                )
            except (Conflict, NotFound):
                continue  # it is still at work, has succeeded, or is deleted

    def sweeps(self, chance: random.Random, store: Store) -> None:
        store.run_now(lambda tx: ready_due(tx, policy=POLICY, now=now()))
        node_key = chance.choice(self.nodes)
        store.run_now(lambda tx: mark_silent(tx, node_key, now=now()))
        store.run_now(
            lambda tx: replace_attempts(tx, node_key, is_due=lambda _: True, rules=RULES, now=now())
        )
        self.opens(node_key, store)

    def bumps(self, chance: random.Random, store: Store) -> None:
        heard = chance.sample(self.nodes, 3)
        store.run_now(lambda tx: tx.bump_heard(heard))
        store.run_now(lambda tx: tx.note_seen(dict.fromkeys(heard, now())))

    def joins(self, name: str) -> None:
        key = self.stores[0].run_now(
            lambda tx: tx.add_node(
                NodeId(name), FACTS, tenant=DEFAULT_TENANT, cluster_key=self.cluster, now=now()
            )
        )
        self.nodes.append(key)
        self.opens(key, self.stores[0])

    def opens(self, node_key: NodeKey, store: Store) -> None:
        request = OpenRequest(
            state_id="s", boot_id="b", last_nonce=self.nonces.get(node_key, ""), facts=FACTS, inventory=()
        )
        nonce = f"{random.getrandbits(64):x}"

        def verb(tx: Transaction) -> str:
            granted = open_session(
                tx,
                the(tx.node_view(node_key)),
                request,
                nonce=nonce,
                logs_stored=lambda _: True,
                rules=RULES,
                now=now(),
            )
            return granted.nonce

        self.nonces[node_key] = store.run_now(verb)


def _started(_: random.Random) -> Started:
    return Started()


def _ended(chance: random.Random) -> Exited:
    if chance.random() < 0.93:
        return Exited(code=0, signal=None)
    return Exited(code=1, signal=None, kind=FailureKind.USER_EXIT)


def test_whoever_comes_together_the_invariants_hold() -> None:
    url = postgres.new_database()
    stores = [open_store(url), open_store(url)]
    crowd = Crowd(stores=stores, cluster=a_cluster(stores[0]))
    for number in range(NODES):
        crowd.joins(f"node-{number}")
    doing = [crowd.works] * 5 + [crowd.steers, crowd.sweeps, crowd.bumps] + [crowd.submits] * 2
    assert len(doing) == THREADS
    crowd.may_go.set()
    threads = [crowd.keep_doing(seed, act) for seed, act in enumerate(doing)]
    try:
        _watch(crowd, url)
    finally:
        crowd.is_over = True
        for thread in threads:
            thread.join(30)
        for store in stores:
            store.close()
    assert crowd.errors == []
    assert all(crowd.done.get(act, 0) > 3 for act in ("submits", "works", "steers", "sweeps")), crowd.done


def _watch(crowd: Crowd, url: str) -> None:
    watch, chance = InvariantWatch(), random.Random(0)
    give_up_at = time.monotonic() + SECONDS
    while time.monotonic() < give_up_at and not crowd.errors:
        _look(watch, url)
        if chance.random() < 0.1:
            with _quiet(crowd):
                _look(watch, url)
                crowd.restart_all()
                _look(watch, url)
    with _quiet(crowd):
        _look(watch, url)


@contextmanager
def _quiet(crowd: Crowd) -> Iterator[None]:
    crowd.may_go.clear()
    for _ in range(THREADS):
        assert crowd.turns.acquire(timeout=30)
    try:
        yield
    finally:
        crowd.turns.release(THREADS)
        crowd.may_go.set()


def _look(watch: InvariantWatch, url: str) -> None:
    """At one moment of the whole database."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

        def rows(query: str, *values: object) -> Sequence[tuple[Any, ...]]:
            return connection.execute(query.encode(), values or None).fetchall()

        watch.look(rows)
