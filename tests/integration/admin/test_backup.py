"""Backups of a coordinator that runs and is written to, and what comes of them."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.operator import contents, coordinator_verb, done
from tests.support.transcript import SpokenAgent, Transcript
from windlass.client import Client
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec


def a_job(name: str = "job", *, instances: int = 1) -> JobSpec:
    task = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)), instances=instances)
    return JobSpec(name=name, tasks=(task,))


async def submit(coordinator: CoordinatorProcess, *names: str) -> list[JobId]:
    async with Client(coordinator.profile) as client:
        return [await client.submit(a_job(name)) for name in names]


async def names_of_jobs(coordinator: CoordinatorProcess) -> set[str]:
    async with Client(coordinator.profile) as client:
        return {job.name async for job in client.list()}


def make_it_large(data: Path) -> None:
    """So large that it is copied in many steps: a copy that began anew with each commit would never end."""
    with closing(sqlite3.connect(data / "windlass.db", timeout=60)) as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
            "INSERT INTO facts (at, tenant, kind, payload) "
            "SELECT 8000000000000000, 'default', 'job.submitted', hex(randomblob(2000)) FROM n"
        )
        db.commit()


def incarnation_of(data: Path) -> int:
    with closing(sqlite3.connect(f"file:{data / 'windlass.db'}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()[0])


async def test_a_backup_under_writes_is_whole_and_holds_what_was_acknowledged_before_it(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    make_it_large(own.data)
    acknowledged = await submit(own, *(f"before-{number}" for number in range(20)))
    ended = asyncio.Event()

    async def keep_writing() -> int:
        written = 0
        async with Client(own.profile) as client:
            while not ended.is_set():
                await client.submit(a_job(f"meanwhile-{written}", instances=1000))
                written += 1
        return written

    async with asyncio.TaskGroup() as group:
        writer = group.create_task(keep_writing())
        told = await asyncio.to_thread(
            coordinator_verb, "backup", "--data", own.data, "--to", tmp_path / "backup.db", "--json"
        )
        ended.set()
    assert json.loads(done(told))["jobs"] >= len(acknowledged)
    assert writer.result() > 0, "nothing was written while the backup was taken"
    assert sorted(path.name for path in tmp_path.glob("*backup*")) == ["backup.db"]
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600

    done(coordinator_verb("restore", "--from", tmp_path / "backup.db", "--data", tmp_path / "again"))
    with CoordinatorProcess(tmp_path / "again") as again:
        assert {f"before-{number}" for number in range(20)} <= await names_of_jobs(again)


async def test_a_restore_begins_another_incarnation_each_time_and_leaves_the_backup_as_it_is(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    await submit(own, "job")
    backup = tmp_path / "backups"
    backup.mkdir()
    done(coordinator_verb("backup", "--data", own.data, "--to", backup))
    (file,) = backup.glob("windlass-*.db")
    before = contents(backup)

    for name in ("first", "second"):
        done(coordinator_verb("restore", "--from", file, "--data", tmp_path / name))

    first, second = incarnation_of(tmp_path / "first"), incarnation_of(tmp_path / "second")
    assert incarnation_of(own.data) < first < second
    assert contents(backup).items() >= before.items()
    assert (tmp_path / "first").stat().st_mode & 0o777 == 0o700


async def test_users_and_their_tokens_are_there_after_a_restore_and_join_tokens_are_void(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    token = own.admin_token
    async with Client(own.profile) as client:
        join_token, _ = await client.create_join_token(uses=3)
    done(coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db"))
    done(coordinator_verb("restore", "--from", tmp_path / "b.db", "--data", tmp_path / "again"))
    assert token not in (tmp_path / "b.db").read_bytes().decode("latin-1")

    with CoordinatorProcess(tmp_path / "again") as again:
        assert again.admin_token != token
        (again.data / "admin.token").write_text(token)
        assert await names_of_jobs(again) == set()
        transcript = Transcript(again)
        agent = SpokenAgent(transcript, "agent")
        await agent.join(join_token)
        await transcript.close()
        assert agent.node_id == ""
        assert "the join token is used up, expired or unknown" in transcript.text()


@pytest.mark.parametrize("target", ["not-empty", "file"])
def test_a_restore_never_replaces_anything(own: CoordinatorProcess, tmp_path: Path, target: str) -> None:
    done(coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db"))
    place = tmp_path / target
    if target == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").write_text("mine")
    before = contents(tmp_path)

    refused = coordinator_verb("restore", "--from", tmp_path / "b.db", "--data", place)

    assert refused.returncode == 2
    assert str(place) in refused.stderr
    assert contents(tmp_path) == before


def test_a_backup_never_replaces_anything(own: CoordinatorProcess, tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("an older one")
    refused = coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db")
    assert refused.returncode == 2
    assert "never replaces" in refused.stderr
    assert (tmp_path / "b.db").read_text() == "an older one"


def test_the_database_of_a_running_coordinator_is_no_backup(own: CoordinatorProcess, tmp_path: Path) -> None:
    refused = coordinator_verb("restore", "--from", own.data, "--data", tmp_path / "again")
    assert refused.returncode == 2
    assert "windlass-coordinator backup" in refused.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("damage", ["half", "zero", "random", "foreign"])
def test_a_damaged_backup_is_refused_and_nothing_is_left_behind(
    own: CoordinatorProcess, tmp_path: Path, damage: str
) -> None:
    backup = tmp_path / "b.db"
    done(coordinator_verb("backup", "--data", own.data, "--to", backup))
    whole = backup.read_bytes()
    match damage:
        case "half":
            backup.write_bytes(whole[: len(whole) // 2])
        case "zero":
            backup.write_bytes(b"")
        case "random":
            backup.write_bytes(bytes(range(256)) * 64)
        case _:
            backup.unlink()
            with closing(sqlite3.connect(backup)) as db:
                db.execute("CREATE TABLE recipes (name TEXT)")
    before = contents(tmp_path)

    refused = coordinator_verb("restore", "--from", backup, "--data", tmp_path / "again")

    assert refused.returncode == 2
    assert str(backup) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert contents(tmp_path) == before


async def test_a_backup_that_is_killed_leaves_nothing_under_its_name(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    await submit(own, "job")
    killed = coordinator_verb(
        "backup", "--data", own.data, "--to", tmp_path / "b.db", dies_at="coord.backup.before_rename"
    )
    assert killed.returncode == -9
    assert not (tmp_path / "b.db").exists()
    done(coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db"))


def test_a_restore_that_is_killed_leaves_no_directory_under_its_name(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    done(coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db"))
    restore = ("restore", "--from", tmp_path / "b.db", "--data", tmp_path / "again")

    assert coordinator_verb(*restore, dies_at="coord.restore.before_rename").returncode == -9
    assert not (tmp_path / "again").exists()

    done(coordinator_verb(*restore))
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["windlass.db"]
