"""The coordinator's disk is full, fails, turns read-only, loses its power (A06-A08, A13)."""

import asyncio
import os
import random
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support import fault_mount, small_disk
from tests.support.fault_mount import FaultMount
from tests.support.world import World
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import JobState

IMPATIENT = timedelta()
DISK_FAILED = 3


async def refused(world: World) -> str:
    """What a user is told who submits now."""
    async with world.new_client(patience=IMPATIENT) as client:
        try:
            await client.submit(world.job("true"))
        except WindlassError as error:
            return str(error)
    return ""


@scenario("A06")
async def test_a06_with_a_full_disk_submits_are_refused_and_results_land(world: World) -> None:
    if why := small_disk.lacking():
        raise NotRun(why)
    place = world.directory / "small"
    disk = world.stack.enter_context(small_disk.small_disk(place, size_bytes=96 << 20))
    world.coordinator = world.new_coordinator(place / "coordinator")
    await world.start(slots=4)
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; exit 7", instances=2), fail_on_instance_failure=False)
    await world.until_started(job, 2)
    disk.fill()

    async def is_refused() -> bool:
        return "disk" in await refused(world)

    await world.until(is_refused)
    assert world.coordinator.get("/health/ready")[0] == 503
    gate.open()
    assert (await world.wait(job)).state is JobState.FAILED
    assert [one.attempts[-1].exit_code for one in await world.instances(job)] == [7, 7]
    disk.empty()
    async with asyncio.timeout(5):
        while await refused(world):
            await asyncio.sleep(0.1)
    assert (await world.wait(await world.submit("true"), within_s=20)).state is JobState.SUCCEEDED
    assert world.coordinator.get("/health/ready")[0] == 200


def failing_disk(world: World) -> FaultMount:
    """The coordinator's data lie on it."""
    if why := fault_mount.lacking():
        raise NotRun(why)
    mounted = fault_mount.fault_mount(world.directory / "mount", world.directory / "root")
    mount = world.stack.enter_context(mounted)
    world.coordinator = world.new_coordinator(mount.path / "coordinator")
    return mount


@scenario("A07")
async def test_a07_a_failed_sync_ends_the_coordinator_and_the_next_has_what_was_acknowledged(
    world: World,
) -> None:
    mount = failing_disk(world)
    await world.start()
    gate = world.gate()
    known = await world.submit(world.task(gate.wait), key="known")
    await world.until_running(known)  # and has told so, in a commit
    before = mount.counts()
    mount.fail("fsync", path="*-wal")
    failed_at_s = time.monotonic()
    assert await refused(world)
    assert await asyncio.to_thread(world.coordinator.exit_code) == DISK_FAILED
    assert time.monotonic() - failed_at_s < 3
    after = mount.counts()
    assert after["fsync windlass.db-wal"] == before["fsync windlass.db-wal"] + 1
    assert after.get("fsync windlass.db", 0) == before.get("fsync windlass.db", 0)
    mount.clear()
    world.coordinator.start()
    assert await world.submit(world.task(gate.wait), key="known") == known
    gate.open()
    assert (await world.wait(known)).state is JobState.SUCCEEDED
    assert len(world.ledger.starts(known)) == 1


@scenario("A13")
async def test_a13_a_data_directory_that_turns_read_only_stops_nothing_that_runs(world: World) -> None:
    mount = failing_disk(world)
    await world.start()
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; exit 5"), fail_on_instance_failure=False)
    await world.until_started(job)
    mount.fail("change", error="EROFS")

    async def is_not_ready() -> bool:
        return bool(await refused(world)) and world.coordinator.get("/health/ready")[0] == 503

    await world.until(is_not_ready)
    gate.open()
    await world.until(lambda: bool(world.ledger.ends(job)))
    assert world.agents[0].is_running
    await asyncio.sleep(2.5)  # it looks once a second whether it can write again
    assert "store.recovered" not in world.coordinator.said
    mount.clear()
    assert (await world.wait(job)).state is JobState.FAILED
    assert [attempt.exit_code for attempt in await world.attempts(job)] == [5]
    await world.until(lambda: world.coordinator.get("/health/ready")[0] == 200)
    assert (await world.wait(await world.submit("true"), within_s=20)).state is JobState.SUCCEEDED


@scenario("A13")
async def test_a13_an_index_that_the_disk_did_not_take_is_never_believed(world: World) -> None:
    mount = failing_disk(world)
    await world.start()
    index = world.coordinator.database.with_name("windlass.db-shm")
    first = await world.submit("true", key="first")
    await world.wait(first)
    with index.open("rb") as file:
        os.fsync(file.fileno())  # the disk takes it once more
    mount.fail("write", path="*-shm", error="EROFS")
    second = await world.submit("true", key="second")
    await world.wait(second)
    with suppress(OSError):
        index.open("rb").close()  # for which the kernel forgets what the disk does not take
    assert await refused(world)
    assert await asyncio.to_thread(world.coordinator.exit_code) == DISK_FAILED
    assert "the index of its log is an older one" in world.coordinator.said
    mount.clear()
    world.coordinator.start()
    assert (await world.wait(second)).state is JobState.SUCCEEDED
    assert await world.submit("true", key="second") == second


@dataclass
class Acknowledged:
    """What a user was told, over all lives of the coordinator."""

    jobs: dict[str, JobId] = field(default_factory=dict)
    """By idempotency key."""
    ended: dict[JobId, JobState] = field(default_factory=dict)
    stopped: set[JobId] = field(default_factory=set)

    async def load(self, world: World, mount: FaultMount, rng: random.Random) -> None:
        """Submits, stops and looks until the power is gone."""
        async with world.new_client(patience=IMPATIENT) as client:
            while not mount.is_cut and world.coordinator.is_running:
                key = f"job-{len(self.jobs)}-{rng.random()}"
                with suppress(WindlassError):
                    self.jobs[key] = await client.submit(
                        world.job(world.task("seq 1 2000")), idempotency_key=key
                    )
                job = rng.choice(list(self.jobs.values())) if self.jobs else None
                with suppress(WindlassError):
                    if job is not None and rng.random() < 0.2:
                        await client.stop(job)
                        self.stopped.add(job)
                    if job is not None and (state := (await client.get(job)).state).is_terminal:
                        self.ended[job] = state

    async def check(self, world: World) -> None:
        for key, job in self.jobs.items():
            assert await world.submit(world.task("seq 1 2000"), key=key) == job
            state = (await world.wait(job)).state
            assert self.ended.get(job, state) is state
            if job in self.stopped and job not in self.ended:
                assert state in (JobState.STOPPED, JobState.SUCCEEDED)
            if state is JobState.SUCCEEDED:
                assert await world.log(job) == b"".join(b"%d\n" % number for number in range(1, 2001))


@scenario("A08", limit_s=3600)
async def test_a08_a_power_cut_takes_nothing_that_was_acknowledged(
    world: World, profile: FaultProfile
) -> None:
    if why := fault_mount.lacking():
        raise NotRun(why)
    rng, told = random.Random(8), Acknowledged()
    root, path = world.directory / "root", world.directory / "mount"
    world.coordinator = world.new_coordinator(path / "coordinator")
    with fault_mount.fault_mount(path, root):
        await world.start(slots=4)
        world.coordinator.kill()
    for number in range(profile.of(quick=3, full=200)):
        with fault_mount.fault_mount(path, root) as mount:
            mount.remember()
            mount.cut_power_at(rng.randint(1, 400))
            world.coordinator.spawn()
            await told.load(world, mount, rng)
            mount.cut_power()
            world.coordinator.give_up()
            mount.revert(seed=number, kept=rng.choice([0.0, 0.5, 0.9]))
        assert _integrity(root / "coordinator/windlass.db") == "ok"
    world.stack.enter_context(fault_mount.fault_mount(path, root))
    world.coordinator.start()
    assert told.jobs
    await told.check(world)


def _integrity(database: Path) -> str:
    """By SQLite's own check, on a copy."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            copy.with_name(copy.name + suffix).write_bytes(source.read_bytes())
    try:
        with closing(sqlite3.connect(copy)) as connection:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        for left in database.parent.glob("copy.db*"):
            left.unlink()
