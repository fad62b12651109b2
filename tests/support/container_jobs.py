"""Jobs that run in containers of a test's own engine."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

from tests.support.agent_system import AgentUnderTest, SystemUnderTest, a_job, until
from tests.support.docker_engine import IMAGE
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Container
from windlass_proto.model.status import InstanceStatus

BUSYBOX = Container(image=IMAGE)
_DEADLINE_S = 90.0


class EngineUnderTest(Protocol):
    @property
    def settings(self) -> Mapping[str, str]: ...

    def containers(self) -> list[str]: ...


async def an_agent(
    system: SystemUnderTest, engine: EngineUnderTest, cluster: str, **work: str
) -> AgentUnderTest:
    """Of a cluster of its own, with the engine for its tasks."""
    settings = system.directory / f"{cluster}.toml"
    chosen = {**engine.settings, **work}
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in chosen.items())
    settings.write_text("[work]\n" + "".join(lines))
    return await system.start_agent(cluster, "--config", str(settings))


async def running(
    system: SystemUnderTest, engine: EngineUnderTest, cluster: str, line: str, **task: Any
) -> JobId:
    """A job whose only instance has said that it runs in its container."""
    async with system.client() as client:
        job_id = await client.submit(a_job(cluster, f"echo up; {line}", container=BUSYBOX, **task))
        async with asyncio.timeout(_DEADLINE_S):
            async for chunk in client.follow_log(job_id, TaskName("t"), 0):
                if chunk.data:
                    assert chunk.data.startswith(b"up")
                    break
    assert engine.containers()
    return job_id


async def ended(system: SystemUnderTest, job_id: JobId) -> InstanceStatus:
    """Its only instance, with all attempts."""
    async with system.client() as client, asyncio.timeout(_DEADLINE_S):
        await client.wait(job_id)
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]
        return instance


async def until_gone(engine: EngineUnderTest, name: str) -> None:
    async def is_gone() -> bool:
        return name not in engine.containers()

    await until(is_gone)


async def until_there(engine: EngineUnderTest) -> None:
    async def is_there() -> bool:
        return bool(engine.containers())

    await until(is_there)
