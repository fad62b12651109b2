"""What a database must do that outlives its process, and what its file must not be taken for."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.stored_records import NOW, a_cluster, a_job, a_node, a_task, claim, the
from windlass_coordinator.core.records import (
    TaskBump,
)
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import (
    AttemptEnd,
    InstanceChange,
    Store,
    Transaction,
)
from windlass_proto.errors import Conflict, Unavailable
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
)
from windlass_proto.model.states import AttemptState, InstanceState, TaskState

OnDisk = Callable[[], Store]


@pytest.fixture(params=["sqlite file"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnDisk]:
    """Opens the same database, over and over: every entry of the seam that outlives its process."""
    opened: list[Store] = []

    def opener() -> Store:
        opened.append(open_store(f"sqlite:///{tmp_path / 'windlass.db'}"))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


# What outlives a process


def test_everything_is_there_when_it_is_opened_again(open_again: OnDisk) -> None:
    first = open_again()
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

    assert look(open_again()) == before


PROGRAM = """
import sys
from datetime import UTC, datetime
from windlass_coordinator.stores import open_store
from windlass_proto.model.ids import DEFAULT_TENANT

store = open_store("sqlite:///" + sys.argv[1])
for number in range(1_000_000):
    now = datetime.now(UTC)
    store.run_now(lambda tx: tx.add_cluster(DEFAULT_TENANT, f"c{number}", description="", now=now))
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "windlass.db"
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    with program.stdout as lines:
        acknowledged = [int(next(lines)) for _ in range(50)]
        program.kill()
        acknowledged += [int(line) for line in lines if line.endswith("\n")]
    program.wait(10)

    store = open_store(f"sqlite:///{path}")
    try:
        stored = store.run_now(lambda tx: tx.cluster_names(DEFAULT_TENANT))
    finally:
        store.close()
    assert {f"c{number}" for number in acknowledged} <= set(stored)
    assert len(stored) - len(acknowledged) in (0, 1), "at most the one whose reply was cut off"


# SQLite's file: what it must not be taken for


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def a_foreign_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()


def our_database(path: Path) -> None:
    open_store(f"sqlite:///{path}").close()


def half_of_our_database(path: Path) -> None:
    our_database(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_newer_database(path: Path) -> None:
    our_database(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (a_foreign_database, "is a database of another program: name another data directory"),
        (a_newer_database, "has schema 9999, unknown to this version .*: start the newer version"),
        (half_of_our_database, "is not a whole database .*: restore it from a backup; it was not changed"),
        (lambda path: path.write_bytes(b"\x00\xff" * 3000), "is not a whole database .*restore it"),
        (lambda path: path.write_bytes(b""), "is empty, .*restore it from a backup"),
    ],
    ids=["another program's", "a newer version's", "half of one", "noise", "emptied"],
)
def test_what_is_not_ours_or_not_whole_is_refused_and_left_as_it_was(
    tmp_path: Path, make: Callable[[Path], object], refusal: str
) -> None:
    path = tmp_path / "windlass.db"
    make(path)
    before = contents(tmp_path)

    with pytest.raises(Conflict, match=refusal):
        open_store(f"sqlite:///{path}")

    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", [".", "no/such/folder/windlass.db"])
def test_what_cannot_be_opened_is_unavailable(tmp_path: Path, place: str) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path / place}")


def test_a_database_is_for_its_owner_only(tmp_path: Path) -> None:
    our_database(tmp_path / "windlass.db")

    assert (tmp_path / "windlass.db").stat().st_mode & 0o777 == 0o600


def test_fences_of_a_later_incarnation_are_above_all_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "windlass.db"
    store = open_store(f"sqlite:///{path}")
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task(instances=2))
    (before,) = store.run_now(lambda tx: claim(tx, node))
    store.close()
    db = sqlite3.connect(path)  # what restoring a backup does
    db.execute("UPDATE meta SET value = '2' WHERE key = 'incarnation'")
    db.commit()
    db.close()

    store = open_store(f"sqlite:///{path}")
    try:
        back = InstanceChange(task_key=before.task_key, index=0, state=InstanceState.READY, raise_fence=True)

        def give_back(tx: Transaction) -> None:
            tx.end_attempts([AttemptEnd(ref=before, state=AttemptState.RELEASED)], now=NOW)
            tx.change_instances([back])
            bump = TaskBump(active=-1, ready_again=1)
            tx.bump_tasks({before.task_key: (bump, TaskState.RUNNING)}, ended=(), now=NOW)

        store.run_now(give_back)
        again = store.run_now(lambda tx: claim(tx, node, poll_seq=2))
        fresh = store.run_now(lambda tx: claim(tx, node, poll_seq=3))
    finally:
        store.close()

    assert before.fence >> 40 == 1
    assert [ref.fence >> 40 for ref in again + fresh] == [2, 2]
