"""A real coordinator, and real agents to start, kill and start again; for tests."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.s3_server import S3Server, free_port
from windlass.client import Client
from windlass.profile import Profile
from windlass_proto.model.ids import ClusterName, JobId, TaskName
from windlass_proto.model.specs import Argv, Command, JobSpec, ShellLine, TaskSpec
from windlass_proto.model.states import JobState, LogStream, NodeState
from windlass_proto.model.status import InstanceStatus, JobStatus

DEADLINE_S = 60.0


@dataclass(slots=True, kw_only=True)
class AgentUnderTest:
    """One node: its agent can be ended and started again on the same state."""

    name: str
    state: Path
    command: list[str]
    process: "subprocess.Popen[bytes]"

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)

    def start_again(self) -> None:
        self.process = _start(self.command, self.state.with_suffix(".log"))

    @property
    def said(self) -> str:
        return self.state.with_suffix(".log").read_text()

    def attempt_directories(self) -> list[str]:
        return sorted(path.name for path in (self.state / "attempts").iterdir())


@dataclass(slots=True, kw_only=True)
class SystemUnderTest:
    directory: Path
    address: str
    s3: S3Server
    coordinator: "subprocess.Popen[bytes]"
    coordinator_command: list[str]
    agents: list[AgentUnderTest] = field(default_factory=list)

    def client(self) -> Client:
        return Client(
            Profile(coordinator=self.address, token_file=self.directory / "coordinator/admin.token"),
            patience=timedelta(seconds=30),
        )

    def kill_coordinator(self) -> None:
        self.coordinator.kill()
        self.coordinator.wait(DEADLINE_S)

    def start_coordinator(self) -> None:
        self.coordinator = _start(self.coordinator_command, self.directory / "coordinator.log")

    async def start_agent(
        self, cluster: str, *arguments: str, slots: int = 1, program: str = "windlass_agent.daemon"
    ) -> AgentUnderTest:
        """A node of its own cluster (made when it is not there), ready for work."""
        name = f"{cluster}-{len(self.agents)}"
        async with self.client() as client:
            if cluster not in [one.name for one in await client.clusters()]:
                await client.create_cluster(cluster)
            token, _ = await client.create_join_token(ClusterName(cluster))
        state = self.directory / name
        (self.directory / f"{name}.token").write_text(token)
        command = [
            *(sys.executable, "-m", program, "--state", str(state)),
            *("--coordinator", self.address, "--join-token-file", str(self.directory / f"{name}.token")),
            *("--storage", str(self.s3.storage_file(self.directory / "storage.toml"))),
            *("--name", name, "--slots", str(slots), "--log-level", "debug", *arguments),
        ]
        agent = AgentUnderTest(
            name=name, state=state, command=command, process=_start(command, state.with_suffix(".log"))
        )
        self.agents.append(agent)

        async def is_ready() -> bool:
            assert agent.process.poll() is None, agent.said
            async with self.client() as client:
                states = {one.name: one.state for one in await client.nodes(cluster)}
            # A node that joins has no session yet, and has not told what it has.
            return states.get(name, NodeState.JOINING) is not NodeState.JOINING

        await until(is_ready)
        return agent

    async def run(self, cluster: str, command: Command | str, **task: Any) -> "Ended":
        async with self.client() as client:
            job_id = await client.submit(a_job(cluster, command, **task))
            async with asyncio.timeout(DEADLINE_S):
                status = await client.wait(job_id)
            return await self._ended(client, job_id, status)

    async def _ended(self, client: Client, job_id: JobId, status: JobStatus) -> "Ended":
        instances = [one async for one in client.instances(job_id, all_attempts=True)]
        return Ended(job_id=job_id, state=status.state, reason=status.reason, instances=instances)

    async def log(self, job_id: JobId, *, index: int = 0, stream: LogStream = LogStream.STDOUT) -> bytes:
        """Everything, also what is still on its way."""
        async with self.client() as client, asyncio.timeout(DEADLINE_S):
            chunks = client.follow_log(job_id, TaskName("t"), index, stream=stream)
            return b"".join([chunk.data async for chunk in chunks])


@dataclass(slots=True, kw_only=True)
class Ended:
    job_id: JobId
    state: JobState
    reason: str
    instances: list[InstanceStatus]


def a_job(cluster: str, command: Command | str, **task: Any) -> JobSpec:
    """Of one task, `t`; a text is a shell line."""
    form = ShellLine(line=command) if isinstance(command, str) else command
    spec = TaskSpec(name=TaskName("t"), command=form, cluster=ClusterName(cluster), **task)
    return JobSpec(name="test", tasks=(spec,))


def argv(*args: str) -> Argv:
    return Argv(args=args)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Looks again and again until it holds."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        await asyncio.sleep(0.05)


async def until_exists(path: Path) -> None:
    async def exists() -> bool:
        return path.exists()

    await until(exists)


@contextmanager
def agent_system(directory: Path, s3: S3Server) -> Iterator[SystemUnderTest]:
    address = f"127.0.0.1:{free_port()}"
    command = [
        *(sys.executable, "-m", "windlass_coordinator.app", "--data", str(directory / "coordinator")),
        *("--listen", address, "--http", f"127.0.0.1:{free_port()}"),
    ]
    system = SystemUnderTest(
        directory=directory,
        address=address,
        s3=s3,
        coordinator=_start(command, directory / "coordinator.log"),
        coordinator_command=command,
    )
    try:
        _wait_for_coordinator(system)
        yield system
    finally:
        for agent in system.agents:
            if agent.process.poll() is None:
                agent.end(signal.SIGINT)
        system.coordinator.kill()
        system.coordinator.wait(DEADLINE_S)


def _start(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(os.environ)
        )


def _wait_for_coordinator(system: SystemUnderTest) -> None:
    ready = system.directory / "coordinator/coordinator.json"
    give_up_at = time.monotonic() + DEADLINE_S
    while not (ready.exists() and json.loads(ready.read_text() or "{}")):
        assert system.coordinator.poll() is None, (system.directory / "coordinator.log").read_text()
        assert time.monotonic() < give_up_at, "the coordinator did not come up"
        time.sleep(0.05)
