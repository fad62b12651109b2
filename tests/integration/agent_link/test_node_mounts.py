"""What a node shows to every task, and how a task's own inputs replace it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.agent_system import SystemUnderTest
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.states import JobState


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(system: SystemUnderTest) -> AsyncIterator[Path]:
    shared = system.directory / "shared"
    shared.mkdir()
    (shared / "tool").write_text("of the node")
    settings = system.directory / "node.toml"
    settings.write_text(
        f'[[mounts]]\nsource = "file://{shared}"\ndestination = "tools"\n'
        f'[local]\ndirectories = ["{shared}"]\n'
    )
    await system.start_agent("node-mounts", "--config", str(settings))
    yield shared


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("shared")]


async def test_a_task_without_inputs_sees_what_its_node_mounts(system: SystemUnderTest) -> None:
    ended = await system.run("node-mounts", "cat tools/tool")
    assert ended.state is JobState.SUCCEEDED, ended
    assert await system.log(ended.job_id) == b"of the node"


async def test_a_task_with_inputs_sees_those_and_nothing_of_the_nodes(system: SystemUnderTest) -> None:
    system.s3.put("bucket/own/word", "its own")
    ended = await system.run(
        "node-mounts",
        "cat in/word; test ! -e tools",
        inputs=(InputMapping(source="oss://bucket/own/", destination="in"),),
    )
    assert ended.state is JobState.SUCCEEDED, ended
    assert await system.log(ended.job_id) == b"its own"
