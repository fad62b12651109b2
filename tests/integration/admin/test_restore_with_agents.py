"""A coordinator is lost and restored from a backup while agents work (fault A18, promise P16)."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_system import SystemUnderTest, a_job, agent_system, until, until_exists
from tests.support.operator import coordinator_verb, done
from tests.support.s3_server import s3_server
from windlass_proto.errors import NotFound
from windlass_proto.model.states import AttemptState, JobState

DEADLINE_S = 90.0


@pytest.fixture
def system(tmp_path: Path) -> Iterator[SystemUnderTest]:
    (tmp_path / "buckets").mkdir()
    with s3_server(tmp_path / "buckets") as s3, agent_system(tmp_path, s3) as running:
        yield running


def waits(place: Path, name: str, *, code: int = 0) -> str:
    """Tells its pid at its start, ends when its gate has come."""
    return (
        f"echo $$ >> {place}/{name}.began; while [ ! -e {place}/{name}.gate ]; do sleep 0.05; done; "
        f"exit {code}"
    )


def pids(place: Path, name: str) -> list[int]:
    return [int(line) for line in (place / f"{name}.began").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_agents_and_a_restored_coordinator_agree_on_every_attempt(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("c", slots=4)
    backup, data = tmp_path / "backup.db", tmp_path / "coordinator"
    async with system.client() as client:
        goes_on = await client.submit(a_job("c", waits(tmp_path, "goes-on")))
        ends_meanwhile = await client.submit(a_job("c", waits(tmp_path, "ends-meanwhile", code=7)))
        await until_exists(tmp_path / "goes-on.began")
        await until_exists(tmp_path / "ends-meanwhile.began")
        done(await asyncio.to_thread(coordinator_verb, "backup", "--data", data, "--to", backup))
        lost = await client.submit(a_job("c", waits(tmp_path, "lost")))
        await until_exists(tmp_path / "lost.began")

    system.kill_coordinator()
    (tmp_path / "ends-meanwhile.gate").touch()
    shutil.move(data, tmp_path / "damaged")
    done(await asyncio.to_thread(coordinator_verb, "restore", "--from", backup, "--data", data))
    system.start_coordinator()
    await until_exists(data / "admin.token")

    async with system.client() as client, asyncio.timeout(DEADLINE_S):
        assert (await client.wait(ends_meanwhile)).state is JobState.FAILED
        (instance,) = [one async for one in client.instances(ends_meanwhile, all_attempts=True)]
        assert [(one.state, one.exit_code) for one in instance.attempts] == [(AttemptState.FAILED, 7)]

        with pytest.raises(NotFound):
            await client.get(lost)

        async def is_ended() -> bool:
            return not is_alive(pids(tmp_path, "lost")[0])

        await until(is_ended)

        # The keys of what was lost are not given out again.
        again = await client.submit(a_job("c", waits(tmp_path, "again")))
        await until_exists(tmp_path / "again.began")
        for name in ("goes-on", "again"):
            (tmp_path / f"{name}.gate").touch()
        assert (await client.wait(goes_on)).state is JobState.SUCCEEDED
        assert (await client.wait(again)).state is JobState.SUCCEEDED

    assert [len(pids(tmp_path, name)) for name in ("goes-on", "ends-meanwhile", "lost", "again")] == [1] * 4
    assert agent.end(signal.SIGTERM) == 0
