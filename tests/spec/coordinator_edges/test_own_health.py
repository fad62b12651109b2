"""How the coordinator judges itself: its disk, its store, its duties, its own pauses."""

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from windlass_coordinator.core.disk_space import DiskPolicy, is_short, may_put_aside
from windlass_coordinator.disk_reserve import RESERVE_FILE, DiskReserve
from windlass_coordinator.garbage import came_to_stay, collected_seldom, is_due
from windlass_coordinator.readiness import DutyBoard, Readiness
from windlass_coordinator.stall_watch import STALLED_AFTER, TICK, StallWatch
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.sqlite.troubles import Trouble, judge

POLICY = DiskPolicy(reserve_bytes=1000, spare_bytes=100)


@dataclass
class Clock:
    seconds: float = 0.0
    pardons: list[timedelta] = field(default_factory=list)

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'windlass.db'}")
    yield store
    store.close()


@pytest.mark.parametrize(
    ("free", "has_reserve", "short"),
    [(100, True, False), (99, True, True), (10_000, False, True), (100, False, True)],
)
def test_a_disk_is_short_before_it_is_full(free: int, has_reserve: bool, short: bool) -> None:
    assert is_short(POLICY, free_bytes=free, has_reserve=has_reserve) is short


def test_the_reserve_is_not_put_aside_at_the_cost_of_new_work() -> None:
    assert [may_put_aside(POLICY, free_bytes=free) for free in (1099, 1100)] == [False, True]


def test_a_reserve_that_was_given_up_is_missed_until_it_is_there_again(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path, POLICY)
    reserve.look()
    assert (reserve.why_short, (tmp_path / RESERVE_FILE).stat().st_size) == (None, 1000)

    assert (reserve.give_up(), reserve.give_up()) == (True, False)
    assert f"the disk of {tmp_path} is full" in (reserve.why_short or "")
    assert not (tmp_path / RESERVE_FILE).exists()

    reserve.look()
    assert (reserve.why_short, reserve.is_whole) == (None, True)


def test_a_directory_that_is_gone_is_no_room(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "nowhere", POLICY)
    reserve.look()

    assert "cannot be used: No such file or directory" in (reserve.why_short or "")


def test_a_stall_is_pardoned_once_and_its_length_is_known() -> None:
    clock = Clock()
    watch = StallWatch(clock.pardons.append, monotonic=clock)
    clock.seconds = 7.5 + TICK.total_seconds()
    watch.look()
    watch.look()

    assert (clock.pardons, watch.count) == ([timedelta(seconds=7.5)], 1)


def test_the_load_of_a_moment_is_no_stall() -> None:
    clock = Clock()
    watch = StallWatch(clock.pardons.append, monotonic=clock)
    clock.seconds = (TICK + STALLED_AFTER).total_seconds() - 0.01
    watch.look()

    assert clock.pardons == []


def test_a_failing_duty_makes_the_coordinator_degraded_until_it_has_run_for_a_while() -> None:
    clock = Clock()
    board = DutyBoard(clock)
    board.failed("silence", "KeyError: 1", pause_s=1)
    clock.seconds = 5
    board.failed("silence", "KeyError: 1", pause_s=2)
    assert board.why_not_ready() == "degraded: silence has failed 2 times: KeyError: 1"

    clock.seconds = 5 + 2 + 10
    assert (board.why_not_ready(), board.times_in_a_row("silence")) == (None, 0)
    assert board.failures == {"silence": 2}


def test_readiness_names_all_reasons() -> None:
    reasons: list[str | None] = ["the disk is full", None]
    readiness = Readiness(lambda: reasons[0], lambda: reasons[1])
    assert readiness.why_not() == "starting; the disk is full"

    readiness.begin()
    assert readiness.why_not() == "the disk is full"
    reasons[0] = None
    assert readiness.why_not() is None
    readiness.end()
    assert readiness.why_not() == "going down"


def test_a_store_that_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    condition = StoreCondition(busy_since_s=1.0)
    monkeypatch.setattr("windlass_coordinator.stores.condition.time.monotonic", lambda: 8.0)

    assert condition.why_not_ready() == "the database has not answered for 7 s"


def an_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("said SQLite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ValueError("mine"), Trouble.CALLERS),
        (an_error(sqlite3.SQLITE_ERROR), Trouble.CALLERS),
        (an_error(sqlite3.SQLITE_TOOBIG), Trouble.CALLERS),
        (an_error(sqlite3.SQLITE_FULL), Trouble.FULL),
        (an_error(sqlite3.SQLITE_READONLY), Trouble.READ_ONLY),
        (an_error(sqlite3.SQLITE_BUSY), Trouble.BUSY),
        (an_error(sqlite3.SQLITE_CORRUPT), Trouble.BROKEN),
        (an_error(sqlite3.SQLITE_IOERR_FSYNC), Trouble.BROKEN),
        (an_error(sqlite3.SQLITE_IOERR_WRITE), Trouble.BROKEN),
    ],
)
def test_an_error_tells_whose_it_is(error: Exception, trouble: Trouble, tmp_path: Path) -> None:
    assert judge(error, database=tmp_path / "windlass.db") is trouble
    assert list(tmp_path.iterdir()) == []


def test_one_callers_mistake_does_not_fail_its_neighbours(store: Store) -> None:
    def mistaken(tx: object) -> None:
        tx._db.execute("SELECT * FROM no_such_table")  # type: ignore[attr-defined]  # SQLite's

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.run_now(mistaken)
    assert store.run_now(lambda tx: tx.cluster_names("default")) == []  # type: ignore[arg-type]  # a name


async def test_what_is_looked_up_does_not_wait_for_the_commit_that_is_under_way(store: Store) -> None:
    may_end, begun = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        begun.set()
        may_end.wait(20)

    holding = asyncio.create_task(store.run(hold))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        async with asyncio.timeout(10):
            assert await store.look_up(lambda tx: tx.credential("unknown")) is None
    finally:
        may_end.set()
        await holding


@pytest.mark.parametrize(
    ("since_s", "last_took_s", "unseen", "expected"),
    [
        (59, 0.0, 0, False),
        (60, 0.01, 0, True),
        (60, 0.5, 0, False),  # a thousandth of the time at most
        (500, 0.5, 0, True),
        (10, 0.5, 2_000_000, True),  # too much has come to stay since
        (9, 0.1, 2_000_000, False),
        (10, 1.0, 2_000_000, False),
    ],
)
def test_the_whole_memory_is_looked_through_seldom_and_sooner_when_much_came_to_stay(
    since_s: float, last_took_s: float, unseen: int, expected: bool
) -> None:
    assert is_due(since_s=since_s, last_took_s=last_took_s, unseen=unseen) is expected


async def test_objects_that_come_to_stay_do_not_make_python_look_through_the_whole_memory() -> None:
    def looks_while_many_come() -> int:
        before = gc.get_stats()[2]["collections"]
        kept = [[number] for number in range(500_000)]
        assert len(kept) == 500_000
        return gc.get_stats()[2]["collections"] - before

    usual = gc.get_threshold()
    assert looks_while_many_come() > 0
    async with collected_seldom():
        assert looks_while_many_come() == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)


async def test_what_is_found_to_be_garbage_when_it_is_young_has_not_come_to_stay() -> None:
    async with collected_seldom():
        before = came_to_stay()
        for _ in range(200_000):
            cycle: list[object] = []
            cycle.append(cycle)
        of_garbage, before = came_to_stay() - before, came_to_stay()
        kept = [[number] for number in range(200_000)]
        of_kept = came_to_stay() - before

    assert len(kept) == 200_000
    assert of_garbage < 20_000
    assert of_kept > 150_000
