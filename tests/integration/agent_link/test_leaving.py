"""A node that is asked to leave finishes what it has and is gone."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agent_system import DEADLINE_S, SystemUnderTest, a_job, until, until_exists
from windlass_proto.model.states import AttemptState, JobState

pytestmark = pytest.mark.asyncio(loop_scope="module")


def leave(state: Path, within: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "windlass_agent.daemon", "leave", "--state", str(state)]
    with said_by_leave(state).open("wb") as said:
        return subprocess.Popen([*command, "--within", within], stderr=said)


def said_by_leave(state: Path) -> Path:
    return state.with_suffix(".leave")


async def test_a_node_that_is_asked_to_leave_waits_for_what_runs_and_takes_nothing_new(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("leaving", slots=2)
    go = tmp_path / "go"
    async with system.client() as client:
        job_id = await client.submit(
            a_job("leaving", f"touch {go}.began; while [ ! -e {go} ]; do sleep 0.05; done; echo done")
        )
        await until_exists(tmp_path / "go.began")
        leaving = leave(agent.state, "60s")

        async def is_closing() -> bool:
            return "event=node.leaving" in agent.said

        await until(is_closing)
        later = await client.submit(a_job("leaving", "true"))
        assert agent.process.poll() is None
        go.touch()
        assert (await asyncio.to_thread(leaving.wait, DEADLINE_S), agent.process.wait(DEADLINE_S)) == (0, 0)
        assert (await client.wait(job_id)).state is JobState.SUCCEEDED
        assert await system.log(job_id) == b"done\n"
        assert await client.nodes("leaving") == ()
        assert (await client.get(later)).state is not JobState.SUCCEEDED

        await system.start_agent("leaving")
        assert (await client.wait(later)).state is JobState.SUCCEEDED


async def test_what_is_not_done_in_time_is_ended_and_runs_elsewhere(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("leaving-soon")
    async with system.client() as client:
        job_id = await client.submit(
            a_job("leaving-soon", f'touch {tmp_path}/began; [ "$WINDLASS_ATTEMPT" = 2 ] || exec sleep 1000')
        )
        await until_exists(tmp_path / "began")
        leaving = leave(agent.state, "1s")
        assert await asyncio.to_thread(leaving.wait, DEADLINE_S) == 0
        await system.start_agent("leaving-soon")
        assert (await client.wait(job_id)).state is JobState.SUCCEEDED
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
        assert [one.state for one in instance.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]


async def test_an_agent_that_left_may_join_again_from_the_same_directory(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("coming-back")
    assert await asyncio.to_thread(leave(agent.state, "30s").wait, DEADLINE_S) == 0
    again = await system.start_agent("coming-back", "--state", str(agent.state))
    assert again.process.poll() is None
    assert (await system.run("coming-back", "true")).state is JobState.SUCCEEDED


async def test_nobody_leaves_where_no_agent_runs(tmp_path: Path) -> None:
    assert await asyncio.to_thread(leave(tmp_path, "1s").wait, DEADLINE_S) == 1
    assert "no agent runs on" in said_by_leave(tmp_path).read_text()
