"""What becomes of work when programs are ended, killed, or given too much."""

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.agent_system import (
    DEADLINE_S,
    AgentUnderTest,
    SystemUnderTest,
    a_job,
    until,
    until_exists,
)
from tests.support.left_processes import naming
from tests.support.s3_server import free_port
from windlass_agent.runner.cgroups import read_trees
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import OutputMapping
from windlass_proto.model.states import AttemptState, JobState

pytestmark = pytest.mark.asyncio(loop_scope="module")


def a_command_that_waits(place: Path) -> str:
    """Tells its pid once and again when the file `gate` has come."""
    place.mkdir()
    return (
        f"echo began $$; touch {place}/began.$WINDLASS_INDEX.$WINDLASS_ATTEMPT; "
        f"while [ ! -e {place}/gate ]; do sleep 0.05; done; echo ended $$"
    )


def pids(log: bytes) -> tuple[list[str], list[str]]:
    text = log.decode()
    return re.findall(r"began (\d+)", text), re.findall(r"ended (\d+)", text)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_commands_outlive_their_agent_and_the_next_one_takes_them_over(
    system: SystemUnderTest, tmp_path: Path, how: signal.Signals
) -> None:
    cluster = f"outlive-{how.name.lower()}"
    agent = await system.start_agent(cluster)
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job(cluster, a_command_that_waits(place), stdout="oss://bucket/o/"))
        await until_exists(place / "began.0.1")
        agent.end(how)
        agent.start_again()
        (place / "gate").touch()
        status = await client.wait(job_id)
    assert status.state is JobState.SUCCEEDED
    began, ended = pids(await system.log(job_id))
    assert len(began) == 1
    assert began == ended
    assert pids(system.s3.get(f"bucket/o/stdout.{job_id}.t.0")) == (began, ended)


async def test_a_command_that_ended_while_no_agent_was_there_is_reported_by_the_next(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("unwatched")
    place = tmp_path / "place"
    async with system.client() as client:
        line = a_command_that_waits(place) + f"; mkdir -p out; echo 1 > out/x; touch {place}/done; exit 0"
        outputs = (OutputMapping(source="out", destination="oss://bucket/unwatched/"),)
        job_id = await client.submit(a_job("unwatched", line, outputs=outputs))
        await until_exists(place / "began.0.1")
        agent.end(signal.SIGKILL)
        (place / "gate").touch()
        await until_exists(place / "done")
        agent.start_again()
        status = await client.wait(job_id)
    assert status.state is JobState.SUCCEEDED
    assert system.s3.get("bucket/unwatched/x") == b"1\n"


async def test_sigint_ends_commands_too_and_they_are_tried_again_at_no_cost_to_the_user(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("interrupted")
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job("interrupted", a_command_that_waits(place)))
        await until_exists(place / "began.0.1")
        assert agent.end(signal.SIGINT) == 0
        assert naming(str(place)) == []
        agent.start_again()
        await until_exists(place / "began.0.2")
        (place / "gate").touch()
        status = await client.wait(job_id)
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
    assert status.state is JobState.SUCCEEDED
    assert [attempt.state for attempt in instance.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    assert instance.attempts[0].failure is FailureKind.INFRA_NODE_LOST
    assert instance.user_failures == 0


def groups_of(agent: AgentUnderTest) -> list[Path]:
    """The node's groups, in every tree of this machine."""
    state_id = json.loads((agent.state / "node.json").read_text())["state_id"]
    trees = read_trees(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    bases = {path for path in (trees.unified, *trees.v1.values()) if path}
    return [group for base in bases for group in base.glob(f"windlass-{state_id}*")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_an_agent_that_ends_everything_leaves_no_group(
    system: SystemUnderTest, tmp_path: Path, how: signal.Signals
) -> None:
    cluster = f"groups-{how.name.lower()}"
    agent = await system.start_agent(cluster, "--exit-kills", slots=2)
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job(cluster, a_command_that_waits(place)))
        await until_exists(place / "began.0.1")
        assert groups_of(agent)
        assert agent.end(how) == 0
        assert groups_of(agent) == []
        await client.stop(job_id)


async def test_groups_stay_for_commands_that_outlive_their_agent_and_for_nothing_else(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("groups-kept")
    before = groups_of(agent)
    agent.end(signal.SIGTERM)
    assert before
    assert groups_of(agent) == []
    agent.start_again()
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job("groups-kept", a_command_that_waits(place)))
        await until_exists(place / "began.0.1")
        agent.end(signal.SIGTERM)
        assert sorted(groups_of(agent)) == sorted(before)
        agent.start_again()
        (place / "gate").touch()
        assert (await client.wait(job_id)).state is JobState.SUCCEEDED


async def test_an_agent_on_a_copy_of_the_state_leaves_the_originals_command_alone(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("copied")
    place, copy, log = tmp_path / "place", tmp_path / "copy", tmp_path / "log"
    nowhere = f"127.0.0.1:{free_port()}"
    async with system.client() as client:
        job_id = await client.submit(a_job("copied", a_command_that_waits(place)))
        await until_exists(place / "began.0.1")
        subprocess.run(["cp", "-a", agent.state, copy], check=True)
        command = [*agent.command[:3], "--state", str(copy), "--coordinator", nowhere]
        with log.open("wb") as out, subprocess.Popen(command, stderr=out) as other:

            async def has_looked() -> bool:
                return "session.refused" in log.read_text()

            await until(has_looked)
            other.send_signal(signal.SIGINT)
            assert other.wait(DEADLINE_S) == 0
        (place / "gate").touch()
        async with asyncio.timeout(DEADLINE_S):
            status = await client.wait(job_id)
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
    assert "attempts.adopted" in log.read_text()
    assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
    assert status.state is JobState.SUCCEEDED


async def test_a_coordinator_that_is_killed_and_restarted_costs_no_command(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    await system.start_agent("restarted", slots=2)
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job("restarted", a_command_that_waits(place), instances=3))
        await until_exists(place / "began.1.1")
        system.kill_coordinator()
        (place / "gate").touch()
        system.start_coordinator()
        status = await client.wait(job_id)
    assert status.state is JobState.SUCCEEDED
    for index in range(3):
        began, ended = pids(await system.log(job_id, index=index))
        assert len(began) == 1
        assert began == ended


async def test_stopping_a_job_ends_its_commands_and_starts_no_more(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    await system.start_agent("stopped")
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job("stopped", a_command_that_waits(place), instances=3))
        await until_exists(place / "began.0.1")
        await client.stop(job_id)
        status = await client.wait(job_id)
    assert status.state is JobState.STOPPED
    assert sorted(path.name for path in place.iterdir()) == ["began.0.1"]
    assert naming(str(place)) == []


async def test_work_that_waits_behind_a_long_command_goes_to_another_node(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    cluster = "given-back"
    await system.start_agent(cluster)
    await system.run(cluster, "true", instances=20)  # the node learns that its work is short, and takes ahead
    place = tmp_path / "place"
    async with system.client() as client:
        job_id = await client.submit(a_job(cluster, a_command_that_waits(place), instances=2))
        await until_exists(place / "began.0.1")
        await system.start_agent(cluster)

        async def both_run() -> bool:
            return any(path.name.startswith("began.1.") for path in place.iterdir())

        await until(both_run)
        (place / "gate").touch()
        status = await client.wait(job_id)
        nodes = [one.attempts[-1].node_name async for one in client.instances(job_id)]
    assert status.state is JobState.SUCCEEDED
    assert len(set(nodes)) == 2


async def test_an_attempt_of_several_slots_has_them_for_itself(system: SystemUnderTest) -> None:
    await system.start_agent("wide", slots=2)
    log = system.directory / "wide.ledger"
    line = f"echo + >> {log}; sleep 0.2; echo - >> {log}"
    ended = await system.run("wide", line, instances=3, resources=Resources(slots=2))
    assert ended.state is JobState.SUCCEEDED
    assert log.read_text() == "+\n-\n" * 3


async def test_a_node_with_a_wrong_join_token_says_so_and_ends(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("tokens")
    command = [
        *agent.command[:3],
        *("--state", str(tmp_path / "state"), "--coordinator", system.address, "--join-token", "nonsense"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 1
    assert "token" in ended.stderr.splitlines()[-1]


async def test_a_second_agent_on_one_state_directory_ends_at_once(system: SystemUnderTest) -> None:
    agent = await system.start_agent("second")
    ended = subprocess.run(agent.command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 1
    assert f"another agent uses the state directory {agent.state}" in ended.stderr
