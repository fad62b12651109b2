"""PostgreSQL behind a bad network, and one that takes too long: what a verb's caller may believe of it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.support import postgres
from tests.support.chaos_proxy import ChaosProxy, chaos_proxy
from tests.support.stored_records import NOW, a_cluster, a_node
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_coordinator.stores.postgres import sessions, transact
from windlass_proto.errors import Overloaded, Unavailable
from windlass_proto.model.ids import DEFAULT_TENANT
from windlass_proto.model.states import NodeState

_PATIENCE_S = 60.0


@dataclass
class FarStore:
    """A store whose database is behind a proxy."""

    url: str
    proxy: ChaosProxy
    store: Store
    tries: int = 0
    has_run: threading.Event = field(default_factory=threading.Event)

    def add_cluster(self, before_commit: Callable[[], None]) -> "Future[None]":
        """By a verb that calls this at its end, the first time it runs; in a thread of its own."""

        def verb(tx: Transaction) -> None:
            self.tries += 1
            tx.add_cluster(DEFAULT_TENANT, "far", description="", now=NOW)
            if self.tries == 1:
                before_commit()
                self.has_run.set()

        threads = ThreadPoolExecutor(1)
        done = threads.submit(self.store.run_now, verb)
        threads.shutdown(wait=False)
        return done

    def stored(self) -> list[str]:
        """As the database itself knows it, by a way of one's own."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("SELECT name FROM clusters WHERE name = 'far'").fetchall()
        return [row[0] for row in rows]

    def await_stored(self) -> None:
        waiting = threading.Event()
        for _ in range(int(_PATIENCE_S / 0.05)):
            if self.stored():
                return
            waiting.wait(0.05)
        raise AssertionError("the verb was not committed")


@pytest.fixture
def far() -> Iterator[FarStore]:
    url = postgres.new_database()
    address = psycopg.conninfo.conninfo_to_dict(url)
    target = f"{address['host']}:{address['port']}"
    with chaos_proxy(target) as proxy:
        store = open_store(url.replace(target, proxy.address))
        try:
            yield FarStore(url, proxy, store)
        finally:
            proxy.heal()
            store.close()


def _hold_answers(far: FarStore) -> None:
    far.proxy.down.held = True


def _hold_questions(far: FarStore) -> None:
    far.proxy.up.held = True


def test_a_commit_whose_answer_is_lost_is_found_and_the_verb_not_run_again(far: FarStore) -> None:
    done = far.add_cluster(lambda: _hold_answers(far))
    far.await_stored()
    far.proxy.reset()
    far.proxy.heal()

    done.result(_PATIENCE_S)

    assert (far.tries, far.stored()) == (1, ["far"])


def test_a_verb_whose_commit_did_not_arrive_is_run_again(far: FarStore) -> None:
    done = far.add_cluster(lambda: _hold_questions(far))
    assert far.has_run.wait(_PATIENCE_S)
    far.proxy.reset()
    far.proxy.heal()

    done.result(_PATIENCE_S)

    assert (far.tries, far.stored()) == (2, ["far"])


def test_when_nobody_can_be_asked_the_caller_is_told_that_it_is_not_known(
    far: FarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transact, "_GIVE_UP_AFTER_S", 0.5)
    done = far.add_cluster(lambda: _hold_answers(far))
    far.await_stored()
    far.proxy.refuse()

    with pytest.raises(Unavailable, match="look, or repeat the same call"):
        done.result(_PATIENCE_S)

    assert (far.tries, far.stored()) == (1, ["far"])


@pytest.mark.parametrize("bound", ["statement_timeout", "lock_timeout"])
def test_what_takes_the_database_too_long_is_to_be_tried_again_and_leaves_nothing(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [one for one in sessions._SETTINGS if bound not in one]
    assert len(settings) == len(sessions._SETTINGS) - 1
    monkeypatch.setattr(sessions, "_SETTINGS", (*settings, f"SET {bound} = '300ms'"))
    url = postgres.new_database()
    store = open_store(url)
    try:
        node = a_node(store, a_cluster(store))

        def verb(tx: Transaction) -> None:
            tx.add_cluster(DEFAULT_TENANT, "far", description="", now=NOW)
            tx.set_node_state(node, NodeState.SILENT, now=NOW)

        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM nodes FOR UPDATE")
            with pytest.raises(Overloaded, match="took too long") as refusal:
                store.run_now(verb)
            assert refusal.value.retry_after is not None
            assert "far" not in store.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT))
        store.run_now(verb)
        assert "far" in store.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT))
    finally:
        store.close()
