"""The doctor of a node, beside its agent and without one; it changes nothing."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_system import SystemUnderTest, a_job, agent_system, until_exists
from tests.support.coordinator_process import environment
from tests.support.operator import DEADLINE_S, contents
from tests.support.s3_server import s3_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets").mkdir()
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as running:
        yield running


def examine(state: Path) -> tuple[int, dict[str, dict[str, str]]]:
    completed = subprocess.run(
        [sys.executable, "-m", "windlass_agent.daemon", "doctor", "--state", str(state), "--json"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(),
        check=False,
    )
    assert completed.stderr == ""
    return completed.returncode, {one["what"]: one for one in json.loads(completed.stdout)["findings"]}


async def test_beside_its_agent_and_after_it_the_right_things_are_told(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    agent = await system.start_agent("doctored")
    gate, began = tmp_path / "gate", tmp_path / "began"
    async with system.client() as client:
        job_id = await client.submit(
            a_job("doctored", f"touch {began}; while [ ! -e {gate} ]; do sleep 0.05; done")
        )
        await until_exists(began)
        code, found = examine(agent.state)
        assert code == 0, found
        assert found["agent.process"]["says"] == f"an agent runs on it (pid {agent.process.pid})"
        assert "keeper" in found["slot"]["says"]

        agent.end(signal.SIGKILL)
        before = contents(agent.state)
        code, found = examine(agent.state)
        assert (code, found["agent.process"]["health"]) == (0, "note")
        assert "1 attempts are assigned" in found["intents"]["says"]
        assert found["slot.orphaned"]["health"] == "note"
        assert contents(agent.state) == before

        agent.start_again()
        gate.touch()
        await client.wait(job_id)


async def test_damage_of_a_state_directory_is_told_and_left_as_it_is(system: SystemUnderTest) -> None:
    agent = await system.start_agent("damaged")
    await system.run("damaged", "true")
    agent.end(signal.SIGINT)
    with (agent.state / "intents").open("ab") as intents:
        intents.write(b"what is this\n")
    (agent.state / "node.json").chmod(0o644)
    (agent.state / "attempts" / "77.0.1").mkdir()
    before = contents(agent.state)

    code, found = examine(agent.state)

    assert code == 1
    assert found["intents"]["health"] == "problem"
    assert found["identity.permissions"]["health"] == "problem"
    assert found["attempts.left"]["health"] == "note"
    assert contents(agent.state) == before


async def test_a_directory_without_an_agents_state_could_not_be_looked_at(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "windlass_agent.daemon", "doctor", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(),
        check=False,
    )
    assert completed.returncode == 2
    assert "holds no agent's state" in completed.stderr
    assert list(tmp_path.iterdir()) == []
