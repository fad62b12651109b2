"""A disk that fills up: no more work is taken, what is here comes to its end, and later all goes on."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import fault_mount, small_disk
from tests.support.agent_system import SystemUnderTest, a_job, until, until_exists
from tests.support.small_disk import SmallDisk
from windlass.client import Client
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import AttemptState, JobState

pytestmark = pytest.mark.skipif(bool(small_disk.lacking()), reason=small_disk.lacking())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk.small_disk(tmp_path / "disk", size_bytes=64 << 20) as disk:
        yield disk


async def test_a_node_takes_no_work_before_its_disk_is_full_and_takes_it_again_when_there_is_room(
    system: SystemUnderTest, disk: SmallDisk
) -> None:
    agent = await system.start_agent("nearly-full", "--state", str(disk.path / "state"))

    async def said(text: str) -> bool:
        return text in agent.said

    disk.fill(leaving_bytes=2 << 20)
    await until(lambda: said("event=intake.closed"))
    assert "MiB of disk are free" in agent.said
    async with system.client() as client:
        job_id = await client.submit(a_job("nearly-full", "exit 0"))

        async def tells_why() -> bool:
            return "MiB of disk are free" in (await client.nodes("nearly-full"))[0].reason

        await until(tells_why)
        assert await attempts(client, job_id) == []
        disk.empty()
        async with asyncio.timeout(60):
            assert (await client.wait(job_id)).state is JobState.SUCCEEDED
    assert agent.said.count("event=intake.closed") == 1
    assert agent.said.count("event=intake.cleared") == 1


async def attempts(client: Client, job_id: JobId) -> list[AttemptState]:
    """Without those that were given back before they began."""
    instances = [one async for one in client.instances(job_id, all_attempts=True)]
    states = [attempt.state for instance in instances for attempt in instance.attempts]
    return [state for state in states if state not in (AttemptState.RELEASED, AttemptState.LEASED)]


async def test_an_assignment_that_cannot_be_written_down_is_given_back_and_costs_nothing(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    if why := fault_mount.lacking():
        pytest.skip(why)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with fault_mount.fault_mount(tmp_path / "mount", tmp_path / "root") as mount:
        (state / "intents").symlink_to(mount.path / "intents")
        agent = await system.start_agent("broken", "--state", str(state))

        async def said(text: str) -> bool:
            return text in agent.said

        mount.fail("write", path="*intents", error="EIO")
        async with system.client() as client:
            job_id = await client.submit(a_job("broken", "exit 3"))
            await until(lambda: said("event=intents.failed"))
            assert agent.process.poll() is None
            mount.clear()
            async with asyncio.timeout(60):
                assert (await client.wait(job_id)).state is JobState.FAILED
            (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
        states = [one.state for one in instance.attempts]
        assert states == [AttemptState.RELEASED, AttemptState.FAILED]
        assert agent.said.count("event=intake.cleared") == 1
        agent.end(signal.SIGINT)


async def test_on_a_full_disk_what_runs_comes_to_its_end_with_its_result(
    system: SystemUnderTest, disk: SmallDisk, tmp_path: Path
) -> None:
    agent = await system.start_agent("full", "--state", str(disk.path / "state"), slots=2)
    go = tmp_path / "go"
    async with system.client() as client:
        job_id = await client.submit(
            a_job("full", f"touch {go}.began; while [ ! -e {go} ]; do sleep 0.05; done; echo lost; exit 7")
        )
        await until_exists(tmp_path / "go.began")
        disk.fill()
        go.touch()
        async with asyncio.timeout(60):
            status = await client.wait(job_id)
        assert status.state is JobState.FAILED
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
        assert [(one.state, one.exit_code) for one in instance.attempts] == [(AttemptState.FAILED, 7)]
        disk.empty()
        again = await client.submit(a_job("full", "exit 0"))
        async with asyncio.timeout(60):
            assert (await client.wait(again)).state is JobState.SUCCEEDED
    assert agent.process.poll() is None
    assert "Traceback" not in agent.said
