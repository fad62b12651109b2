"""Databases that are damaged, foreign, taken, read for ever, restored (A09-A12, A15-A18)."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.world import World
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import TaskName
from windlass_proto.model.states import AttemptState, JobState

CANNOT_START = 2
LOG_BOUND_BYTES = 32 << 20
"""What the write-ahead log may grow to: its own bound and what is written until it is next looked at."""


async def stopped(world: World) -> None:
    """A store with a job in it, and nobody who has it open."""
    await world.start(agents=0)
    await world.submit("true")
    assert world.coordinator.terminate() == 0


def refusal(world: World) -> str:
    """Starts the coordinator, which must not come up, and gives what it says about that."""
    said_before = len(world.coordinator.said)
    world.coordinator.spawn()
    assert world.coordinator.exit_code() == CANNOT_START
    said = world.coordinator.said[said_before:]
    assert "Traceback" not in said
    return said


def contents(data: Path) -> dict[str, bytes]:
    """Of all files of the database."""
    return {path.name: path.read_bytes() for path in data.glob("windlass.db*") if path.is_file()}


@scenario("A09")
async def test_a09_half_a_database_is_refused_untouched(world: World) -> None:
    await stopped(world)
    whole = world.coordinator.database.read_bytes()
    world.coordinator.database.write_bytes(whole[: len(whole) // 2])
    before = contents(world.coordinator.data)
    assert "restore it from a backup" in refusal(world)
    assert contents(world.coordinator.data) == before
    world.coordinator.database.write_bytes(whole)
    world.coordinator.start()
    assert len([job async for job in world.client.list()]) == 1


def _empty(database: Path) -> None:
    database.write_bytes(b"")


def _noise(database: Path) -> None:
    database.write_bytes(os.urandom(1 << 16))


def _foreign(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()


def _newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _directory(database: Path) -> None:
    database.unlink()
    database.mkdir()


def _gone_but_for_its_log(database: Path) -> None:
    database.with_name("windlass.db-wal").write_bytes(os.urandom(4096))
    database.unlink()


@scenario("A10")
@pytest.mark.parametrize(
    "damage",
    [
        _empty,
        _newer,
        *(
            pytest.param(damage, marks=pytest.mark.full_only)
            for damage in (_noise, _foreign, _directory, _gone_but_for_its_log)
        ),
    ],
    ids=lambda one: one.__name__[1:],
)
async def test_a10_what_is_no_whole_database_of_ours_is_refused_and_never_made_anew(
    world: World, damage: Callable[[Path], None]
) -> None:
    await stopped(world)
    whole = world.coordinator.database.read_bytes()
    damage(world.coordinator.database)
    before = contents(world.coordinator.data)
    assert "windlass-coordinator: " in refusal(world)
    assert contents(world.coordinator.data) == before
    if world.coordinator.database.is_dir():
        world.coordinator.database.rmdir()
    for left in world.coordinator.data.glob("windlass.db*"):
        left.unlink()
    world.coordinator.database.write_bytes(whole)


@scenario("A11")
async def test_a11_a_second_coordinator_names_the_first_and_leaves_it_alone(world: World) -> None:
    await world.start()
    second = world.new_coordinator(world.coordinator.data, name="second")
    began_s = time.monotonic()
    second.spawn()
    assert await asyncio.to_thread(second.exit_code) == CANNOT_START
    assert time.monotonic() - began_s < 5
    assert f"pid {world.coordinator.pid}" in second.said
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


@scenario("A12", quick=False, limit_s=1200)
async def test_a12_readers_that_never_finish_do_not_let_the_log_grow(
    world: World, profile: FaultProfile
) -> None:
    await world.start(slots=4)
    gate = world.gate()
    followed = await world.submit(world.task(f"echo begin; {gate.wait}; echo end"))
    await world.until_started(followed)
    until_s = time.monotonic() + profile.of(quick=8, full=600)
    log = world.coordinator.database.with_name("windlass.db-wal")
    longest = 0

    async def read_for_ever() -> None:
        while time.monotonic() < until_s:
            async for _ in world.client.list(page_size=2):
                if time.monotonic() > until_s:
                    return

    async def follow() -> bytes:
        chunks = world.client.follow_log(followed, TaskName("t"), 0)
        return b"".join([chunk.data async for chunk in chunks])

    async def write() -> None:
        nonlocal longest
        while time.monotonic() < until_s:
            await asyncio.gather(*(world.submit(world.task("true", cluster="default")) for _ in range(20)))
            longest = max(longest, log.stat().st_size)

    following = asyncio.ensure_future(follow())
    await asyncio.gather(*(read_for_ever() for _ in range(4)), write())
    assert longest < LOG_BOUND_BYTES
    gate.open()
    assert await following == b"begin\nend\n"


@scenario("A18")
async def test_a18_a_backup_of_a_running_coordinator_is_restored_and_agents_bring_the_rest(
    world: World, profile: FaultProfile
) -> None:
    await world.start(slots=6)
    during, after = world.gate(), world.gate()
    early = await world.submit(
        world.task(f"echo early; {during.wait}; exit 3"), fail_on_instance_failure=False
    )
    long = await world.submit(
        world.task(f"echo long; {after.wait}; echo end; exit 4"), fail_on_instance_failure=False
    )
    await world.until_started(early)
    await world.until_started(long)
    backup = world.directory / "backup"
    writing = asyncio.ensure_future(_write(world, profile.of(quick=50, full=2000)))
    await _verb(world, "backup", "--data", world.coordinator.data, "--to", backup)
    await writing
    # After the backup: a result that the restored store does not have, and a job that it never had.
    during.open()
    assert (await world.wait(early)).state is JobState.FAILED
    lost = await world.submit(world.task(after.wait))
    await world.until_started(lost)
    world.coordinator.kill()
    restored = world.directory / "restored"
    told = json.loads(await _verb(world, "restore", "--from", backup, "--data", restored, "--json"))
    assert told["incarnation"] > told["previous_incarnation"]
    fences = {entry.fence for entry in world.ledger.entries()}
    _go_on_with(world, restored)
    await world.until_ready(*world.agents)
    after.open()
    for job, code in ((early, 3), (long, 4)):
        assert (await world.wait(job)).state is JobState.FAILED
        assert (await world.attempts(job))[-1].exit_code == code
    assert [attempt.state for attempt in await world.attempts(long)] == [AttemptState.FAILED]
    assert await world.log(early) == b"early\n"
    assert await world.log(long) == b"long\nend\n"
    with pytest.raises(WindlassError):
        await world.client.get(lost)
    fresh = await world.submit("true")
    assert (await world.wait(fresh)).state is JobState.SUCCEEDED
    assert world.ledger.starts(fresh)[0].fence > max(fences)


async def _write(world: World, count: int) -> None:
    for _ in range(count):
        await world.submit(world.task("true", instances=2))


async def _verb(world: World, verb: str, *arguments: object) -> str:
    """One of the coordinator's commands for operators; what it prints."""
    command = [sys.executable, "-m", "windlass_coordinator.app", verb, *map(str, arguments)]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        env=world.coordinator.environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _go_on_with(world: World, data: Path) -> None:
    """The same address, other data."""
    command = [
        str(data) if part == str(world.coordinator.data) else part for part in world.coordinator.command
    ]
    world.coordinator.command, world.coordinator.data = command, data
    world.forget_history()
    world.coordinator.start()
