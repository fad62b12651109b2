"""Isolation by a real agent: who chooses it, what is handed over, what is refused."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_system import AgentUnderTest, SystemUnderTest, argv
from tests.support.isolated_slots import lacking, open_directory
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import InputMapping, Isolation, OutputMapping
from windlass_proto.model.states import JobState

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"not run: {lacking()}")


@pytest.fixture
async def node(system: SystemUnderTest) -> AsyncIterator[AgentUnderTest]:
    with open_directory() as directory:
        state = directory / "state"
        agent = await system.start_agent(
            "isolated", "--isolation", "standard", "--state", str(state), slots=2
        )
        yield agent
        assert agent.end(signal.SIGINT) == 0


async def test_a_node_says_which_isolation_it_gives(system: SystemUnderTest, node: AgentUnderTest) -> None:
    async with system.client() as client:
        told = {one.name: one.containment for one in await client.nodes("isolated")}
    assert "standard isolation" in told[node.name]
    assert "standard isolation" in node.said


@pytest.mark.parametrize("asked", [None, Isolation.STRICT])
async def test_inputs_and_outputs_belong_to_the_commands_user(
    system: SystemUnderTest, node: AgentUnderTest, asked: Isolation | None
) -> None:
    put = system.directory / "buckets/bucket/given"
    put.mkdir(parents=True, exist_ok=True)
    (put / "a.txt").write_text("from the store\n")
    where = f"/mnt/windlass-isolated-{os.getpid()}"
    ended = await system.run(
        "isolated",
        f"cat in/a.txt {where}/a.txt && id -u && echo result > out/r.txt && echo more > {where}-out/m.txt"
        " && echo scratch > in/new.txt",
        isolation=asked,
        inputs=(
            InputMapping(source="oss://bucket/given/", destination="in"),
            InputMapping(source="oss://bucket/given/", destination=where),
        ),
        outputs=(
            OutputMapping(source="out", destination="oss://bucket/made/"),
            OutputMapping(source=f"{where}-out", destination="oss://bucket/more/"),
        ),
    )
    for mount_point in (where, f"{where}-out"):
        Path(mount_point).rmdir()
    log = (await system.log(ended.job_id)).decode().split("\n")
    assert ended.state is JobState.SUCCEEDED, (ended.reason, log, node.said[-3000:])
    assert log[:2] == ["from the store"] * 2
    assert int(log[2]) >= 900_000_000
    made = system.directory / "buckets/bucket"
    assert (made / "made/r.txt").read_text() == "result\n"
    assert (made / "more/m.txt").read_text() == "more\n"


async def test_a_task_may_ask_for_more_and_not_for_less(
    system: SystemUnderTest, node: AgentUnderTest
) -> None:
    line = "id -u; grep -c : /proc/net/dev"
    strict = await system.run("isolated", line, isolation=Isolation.STRICT)
    lax = await system.run("isolated", line, isolation=Isolation.DEV)
    assert (strict.state, lax.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED), strict.reason
    assert (await system.log(strict.job_id)).decode().split("\n")[1] == "1"
    assert int((await system.log(lax.job_id)).decode().split("\n")[0]) >= 900_000_000


async def test_limits_of_a_task_hold(system: SystemUnderTest, node: AgentUnderTest) -> None:
    ended = await system.run("isolated", "ulimit -n", resources=Resources(open_files=99, pids=20, cpu=0.5))
    assert ended.state is JobState.SUCCEEDED
    assert await system.log(ended.job_id) == b"99\n"


async def test_the_agent_and_another_attempt_are_out_of_reach(
    system: SystemUnderTest, node: AgentUnderTest
) -> None:
    """G14, as far as one command can try it: the agent's state, its process, its sockets, its memory."""
    state = node.command[-1]
    pid = node.process.pid
    tries = [
        f"cat {state}/node.json",
        f"ls {state}/attempts/ | grep -v $(basename $(dirname $PWD))",
        f"cat /proc/{pid}/environ",
        f"cat /proc/{pid}/mem",
        f"ls /proc/{pid}/fd",
        f"kill -STOP {pid}",
        f"ls {state}/slots/1",
        f"ls {state}/slots/0/keeper.sock",
        "cat /proc/1/environ",
    ]
    script = "\n".join(f"({line}) >/dev/null 2>&1 && echo '{number}'" for number, line in enumerate(tries))
    ended = await system.run("isolated", f"{script}\ntrue")
    assert ended.state is JobState.SUCCEEDED
    assert await system.log(ended.job_id) == b""


async def test_a_path_through_a_planted_link_is_refused(
    system: SystemUnderTest, node: AgentUnderTest
) -> None:
    """E04: a link where a mapping leads to is not followed, whoever made it."""
    with open_directory() as elsewhere:
        target = Path(f"/mnt/windlass-planted-{os.getpid()}")
        target.symlink_to(elsewhere)
        try:
            ended = await system.run(
                "isolated",
                argv("true"),
                outputs=(OutputMapping(source=f"{target}/out", destination="oss://bucket/planted/"),),
            )
        finally:
            target.unlink()
        assert list(elsewhere.iterdir()) == []
    ((attempt,),) = (one.attempts for one in ended.instances)
    assert ended.state is JobState.FAILED
    assert attempt.failure is FailureKind.USER_CONFIG
    assert f"{target} is a symbolic link" in attempt.reason
