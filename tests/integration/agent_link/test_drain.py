"""Nodes that their operator takes out of service, over the wire and by command line."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.agent_system import SystemUnderTest, a_job, until, until_exists
from windlass import Client
from windlass_proto.errors import NotFound
from windlass_proto.model.states import JobState, NodeState

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def is_drained(client: Client, node: str) -> bool:
    return any(one.node_id == node and one.state is NodeState.DRAINED for one in await client.nodes())


async def is_gone(process: Path) -> bool:
    return not process.exists()


async def test_a_drained_node_finishes_its_command_and_takes_no_other(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    await system.start_agent("drained")
    place = tmp_path / "place"
    place.mkdir()
    async with system.client() as client:
        (node,) = await client.nodes("drained")
        command = f"touch {place}/began; while [ ! -e {place}/gate ]; do sleep 0.05; done"
        running = await client.submit(a_job("drained", command))
        await until_exists(place / "began")

        draining = await client.drain_node(node.node_id)
        waiting = await client.submit(a_job("drained", "true"))
        (place / "gate").touch()

        assert (draining.state, draining.reason) == (NodeState.DRAINING, "drained by its operator")
        assert (await client.wait(running)).state is JobState.SUCCEEDED
        await until(lambda: is_drained(client, node.node_id))
        assert (await client.get(waiting)).state is JobState.WAITING
        assert (await client.resume_node(node.name)).state is NodeState.READY
        assert (await client.wait(waiting)).state is JobState.SUCCEEDED


async def test_what_runs_when_the_time_of_a_drain_is_over_is_ended_and_runs_elsewhere(
    system: SystemUnderTest, tmp_path: Path
) -> None:
    await system.start_agent("emptied")
    place = tmp_path / "place"
    place.mkdir()
    command = (
        f"echo $$ > {place}/pid.$WINDLASS_ATTEMPT; touch {place}/began.$WINDLASS_ATTEMPT; "
        f"[ $WINDLASS_ATTEMPT = 2 ] || sleep 600"
    )
    async with system.client() as client:
        (node,) = await client.nodes("emptied")
        job = await client.submit(a_job("emptied", command))
        await until_exists(place / "began.1")
        first = Path("/proc") / (place / "pid.1").read_text().strip()
        await system.start_agent("emptied")

        await client.drain_node(node.node_id, within=timedelta(0))

        assert (await client.wait(job)).state is JobState.SUCCEEDED
        await until(lambda: is_gone(first))
        (instance,) = [one async for one in client.instances(job, all_attempts=True)]
        assert (instance.user_failures, [str(a.failure) for a in instance.attempts]) == (
            0,
            ["PREEMPTED", "None"],
        )


async def test_an_unknown_node_cannot_be_drained(system: SystemUnderTest) -> None:
    async with system.client() as client:
        with pytest.raises(NotFound, match="there is no node nowhere"):
            await client.drain_node("nowhere")
