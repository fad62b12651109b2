"""A whole system of real processes in one directory, for tests of faults, and what is checked after each.

One coordinator, any number of agents, a client, the ledger of all commands. The durations are those of the
test profile, so that a lease, a replacement and a grace after a restart pass within seconds. `close` ends
everything and looks whether the promises held: see `world_checks`.
"""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from tests.support import leftovers
from tests.support import world_checks as checks
from tests.support.agent_system import until
from tests.support.coordinator_process import wait_until
from tests.support.history import check_history, rows_at_rest, rows_in_use
from tests.support.invariants import InvariantWatch, Rows
from tests.support.ledger import Ledger
from tests.support.s3_server import free_port
from tests.support.world_processes import (
    AgentProgram,
    CoordinatorProgram,
    Program,
    Usage,
    clean_environment,
    coordinator_program,
)
from windlass.client import Client
from windlass.profile import Profile
from windlass_coordinator.config import Settings
from windlass_coordinator.settings_tree import paths
from windlass_proto.errors import Conflict
from windlass_proto.model.ids import ClusterName, JobId, TaskName
from windlass_proto.model.specs import Command, JobSpec, ShellLine, TaskSpec
from windlass_proto.model.states import AttemptState, LogStream, NodeState
from windlass_proto.model.status import AttemptStatus, InstanceStatus, JobStatus

WITHIN_S = 60.0
"""Far above what anything here takes on a slow machine: a deadline, not an expectation."""
LEASE_S = 4.0
SILENT_AFTER_S = 6.0
"""The lease and what the coordinator adds to it."""
REPLACE_AFTER_S = 6.0
RESTART_GRACE_S = 6.0
KILL_GRACE_S = 2.0

_COORDINATOR_PROFILE = {
    "lease.shortest_interval": "1s",
    "lease.longest_interval": "2s",
    "lease.shortest_lease": f"{LEASE_S:g}s",
    "lease.replace_after": f"{REPLACE_AFTER_S:g}s",
    "lease.restart_grace": f"{RESTART_GRACE_S:g}s",
    "retry.base": "200ms",
    "retry.ceiling": "2s",
    "log_level": "debug",
}
_AGENT_PROFILE = {
    "WORK_KILL_GRACE": f"{KILL_GRACE_S:g}s",
    "LINK_RETRY_CEILING": "1s",
    "LOG_LEVEL": "debug",
}


@dataclass(slots=True)
class Gate:
    """Commands wait before it until it is opened."""

    path: Path

    @property
    def wait(self) -> str:
        """Shell: goes on when the gate is open."""
        return f"while [ ! -e {self.path} ]; do sleep 0.05; done"

    def open(self) -> None:
        self.path.touch()


@dataclass(slots=True)
class World:
    directory: Path
    stack: AsyncExitStack
    """What a scenario brings along (a proxy, a mount); closed when all processes have ended."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    agents: list[AgentProgram] = field(default_factory=list)
    others: list[Program] = field(default_factory=list)
    """Further programs that the end of the world ends, such as a second coordinator."""
    watch: InvariantWatch = field(default_factory=InvariantWatch)
    allowed_tracebacks: tuple[str, ...] = ()
    """Texts that a traceback may hold, where the fault itself is one that we raise."""
    clean_end: bool = True
    """Whether coordinator and agents are to end with code 0 at the end."""
    coordinator: CoordinatorProgram = field(init=False)
    ledger: Ledger = field(init=False)
    read_rows: "Callable[[], AbstractContextManager[Rows]]" = field(init=False)
    """Where the checker reads the tables; SQLite's by default."""
    _client: Client | None = None
    _join_token: str = ""
    _new: dict[int, Usage] = field(default_factory=dict)
    _measured: dict[int, Usage] = field(default_factory=dict)
    _state_ids: set[str] = field(default_factory=set)
    _gates: int = 0

    def __post_init__(self) -> None:
        (self.directory / "tmp").mkdir()
        self.ledger = Ledger(self.directory / "ledger")
        self.read_rows = self._sqlite_rows
        self.coordinator = self.new_coordinator(self.directory / "coordinator")

    # -- programs

    def new_coordinator(
        self, data: Path, *, name: str = "coordinator", host: str = "127.0.0.1"
    ) -> CoordinatorProgram:
        """Another one than the world's own, or on other data. Put it into `coordinator` or `others`."""
        made = coordinator_program(
            self.directory,
            data=data,
            listen=f"{host}:{free_port()}",
            http=f"127.0.0.1:{free_port()}",
            mark=self.mark,
        )
        made.name, made.log = name, self.directory / f"{name}.log"
        made.environment["TMPDIR"] = str(self.directory / "tmp")
        known = set(paths(Settings()))
        made.settings = {
            setting.replace(".", "_").upper(): value
            for setting, value in _COORDINATOR_PROFILE.items()
            if setting in known
        }
        return made

    async def start(
        self,
        *,
        agents: int = 1,
        slots: int = 2,
        settings: Mapping[str, str] | None = None,
        agent_settings: Mapping[str, str] | None = None,
        via: str = "",
    ) -> None:
        """Starts the coordinator, then agents; returns when all are ready. `via`: see `add_agent`."""
        self.coordinator.settings |= dict(settings or {})
        self.coordinator.start()
        self._note_new(self.coordinator)
        for _ in range(agents):
            await self.add_agent(slots=slots, settings=agent_settings, via=via, wait=False)
        await self.until_ready(*self.agents)

    async def add_agent(
        self,
        *,
        slots: int = 2,
        settings: Mapping[str, str] | None = None,
        via: str = "",
        failpoint: str = "",
        wait: bool = True,
        cluster: str = "default",
        prefix: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
    ) -> AgentProgram:
        """A new node; `via` = an address between it and the coordinator, of a proxy; `prefix` = a program
        that starts it elsewhere; `extra` = variables of its first life."""
        name = f"node-{len(self.agents)}"
        token = self.directory / f"{name}" / "join.token"
        token.parent.mkdir()
        token.write_text(await self._token(cluster))
        state = token.parent / "state"
        agent = AgentProgram(
            name=name,
            command=[
                *prefix,
                *_agent_command(state, via or self.coordinator.address, token, name, slots),
            ],
            environment=clean_environment(self.mark) | {"TMPDIR": str(self.directory / "tmp")},
            log=self.directory / f"{name}.log",
            state=state,
            cluster=cluster,
            settings=_AGENT_PROFILE
            | {"VARIABLES_TMPDIR": str(self.directory / "tmp")}
            | dict(settings or {}),
        )
        self.agents.append(agent)
        agent.spawn(failpoint=failpoint, extra=extra)
        if wait:
            await self.until_ready(agent)
        return agent

    async def _token(self, cluster: str) -> str:
        if cluster != "default":
            if cluster not in [one.name for one in await self.client.clusters()]:
                await self.client.create_cluster(cluster)
            return (await self.client.create_join_token(ClusterName(cluster)))[0]
        if not self._join_token:
            self._join_token, _ = await self.client.create_join_token(uses=1000)
        return self._join_token

    async def until_ready(self, *agents: AgentProgram) -> None:
        """Until these nodes are known to the coordinator and READY."""

        async def ready() -> bool:
            for agent in agents:
                assert agent.is_running, f"{agent.name} has ended:\n{agent.said[-3000:]}"
            found = {node.name: node.state for node in await self.client.nodes()}
            return all(found.get(agent.name) is NodeState.READY for agent in agents)

        await until(ready)
        for agent in agents:
            self._state_ids.add(agent.identity["state_id"])
            self._note_new(agent)

    async def until_node(self, agent: AgentProgram, *states: NodeState) -> None:
        """Until the coordinator sees the node in one of these states."""

        async def is_so() -> bool:
            nodes = await self.client.nodes(include_gone=True)
            return any(node.name == agent.name and node.state in states for node in nodes)

        await until(is_so)

    # -- what users do

    @property
    def client(self) -> Client:
        """At the coordinator itself, past any proxy; patient while it is down."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, *, via: str = "", patience: timedelta = timedelta(seconds=60)) -> Client:
        """Close it yourself."""
        profile = Profile(coordinator=via or self.coordinator.address, token_file=self.coordinator.token_file)
        return Client(profile, patience=patience)

    def task(
        self, body: Command | str = "true", *, name: str = "t", ticks: bool = False, **more: Any
    ) -> TaskSpec:
        """A text is a shell line, and what it does goes into the ledger. `more` = fields of TaskSpec."""
        form = ShellLine(line=self.ledger.recorded(body, ticks=ticks)) if isinstance(body, str) else body
        return TaskSpec(name=TaskName(name), command=form, **more)

    def job(self, *tasks: TaskSpec | str, name: str = "job", **more: Any) -> JobSpec:
        """A text is the only line of a task `t`."""
        made = tuple(self.task(task) if isinstance(task, str) else task for task in tasks)
        return JobSpec(name=name, tasks=made, **more)

    async def submit(self, *tasks: TaskSpec | str, key: str | None = None, **more: Any) -> JobId:
        return await self.client.submit(self.job(*tasks, **more), idempotency_key=key)

    async def wait(self, job_id: JobId, *, within_s: float = WITHIN_S) -> JobStatus:
        """Its final status."""
        async with asyncio.timeout(within_s):
            return await self.client.wait(job_id)

    async def stop(self, job_id: JobId) -> JobStatus:
        """Returns when the stop is acknowledged."""
        return await self.client.stop(job_id)

    async def instances(self, job_id: JobId) -> list[InstanceStatus]:
        """Those that were ever claimed, with all attempts."""
        return [one async for one in self.client.instances(job_id, all_attempts=True)]

    async def attempts(self, job_id: JobId, index: int = 0, *, task: str = "t") -> list[AttemptStatus]:
        """Of one instance, oldest first."""
        found = [one async for one in self.client.instances(job_id, task, index=index, all_attempts=True)]
        return list(found[0].attempts) if found else []

    async def log(self, job_id: JobId, index: int = 0, *, task: str = "t", attempt: int = 0) -> bytes:
        """All of standard output, also what is still on its way."""
        async with asyncio.timeout(WITHIN_S):
            chunks = self.client.follow_log(
                job_id, TaskName(task), index, stream=LogStream.STDOUT, attempt=attempt
            )
            return b"".join([chunk.data async for chunk in chunks])

    def gate(self) -> Gate:
        self._gates += 1
        return Gate(self.directory / f"gate-{self._gates}")

    # -- what happens

    async def until_started(self, job_id: JobId, count: int = 1, *, attempt: int | None = None) -> None:
        """Until the ledger has so many starts of the job (of its first, second ... attempts)."""

        async def started() -> bool:
            starts = self.ledger.starts(job_id)
            return len([s for s in starts if attempt is None or s.attempt == attempt]) >= count

        await until(started)

    async def until_running(self, job_id: JobId, count: int = 1) -> None:
        """Until the coordinator knows of so many newest attempts that they run. What it has not heard of as
        begun is given back when its node dies, not lost."""

        async def is_known() -> bool:
            found = [one async for one in self.client.instances(job_id)]
            return len([o for o in found if o.attempts[-1].state is AttemptState.RUNNING]) >= count

        await until(is_known)

    async def until(self, condition: Callable[[], "bool | Awaitable[bool]"]) -> None:
        """Looks again and again until it holds."""

        async def holds() -> bool:
            found = condition()
            return found if isinstance(found, bool) else await found

        await until(holds)

    async def lasts(self, seconds: float) -> None:
        """The fault goes on for so long: the one wait that is no wait for something."""
        await asyncio.sleep(seconds)

    # -- what is checked

    def look(self) -> None:
        """Checks the invariants on the tables as they are now, against the look before."""
        with self.read_rows() as rows:
            self.watch.look(rows)
            check_history(self.ledger.entries(), rows)

    def forget_history(self) -> None:
        """Another store goes on, such as a restored one: it knows less than the one before."""
        self.watch = InvariantWatch()

    def _sqlite_rows(self) -> "AbstractContextManager[Rows]":
        where = rows_in_use if self.coordinator.is_running else rows_at_rest
        return where(self.coordinator.database)

    def measure(self) -> None:
        """From here on: at the end coordinator and agents may have grown by half."""
        self._measured = {program.pid: program.usage() for program in self._living()}

    def _note_new(self, program: Program) -> None:
        self._new[program.pid] = program.usage()

    def _living(self) -> list[Program]:
        all_of_them = [self.coordinator, *self.agents, *self.others]
        return [program for program in all_of_them if program.is_running]

    # -- its end

    async def settle(self) -> None:
        """Stops what is still open and waits until nothing is left to do: L1-L5 of protocol.md."""
        async for job in self.client.list():
            if not job.state.is_terminal:
                with suppress(Conflict):  # it has ended meanwhile
                    await self.stop(job.job_id)
                await self.wait(job.job_id)
        agents = [agent for agent in self.agents if agent.is_running]
        for agent in agents:

            def is_tidy(agent: AgentProgram = agent) -> bool:
                return agent.attempts() == []

            what = f"{agent.name} has forgotten all attempts (has {agent.attempts()})"
            await asyncio.to_thread(wait_until, is_tidy, within_s=WITHIN_S, what=what)

    async def close(self) -> None:
        """Settles, checks, ends everything, checks again."""
        for program in self._living():
            program.resume()
        if self.coordinator.is_running:
            await self.settle()
        if self.coordinator.database.exists():
            self.look()
        checks.check_growth(self._living(), new=self._new, measured=self._measured, agents=len(self.agents))
        secrets = checks.secrets_of(self.directory, self.agents)
        checks.check_command_lines(self.directory, secrets, mark=self.mark)
        codes = await self._end_programs()
        await checks.until_no_process_is_left(self.directory, mark=self.mark)
        await self.stack.aclose()
        checks.check_left(self.directory, self._state_ids)
        if self.clean_end:
            assert not [code for code in codes.items() if code[1] != 0], f"exit codes {codes}"
        checks.check_logs(self.directory, allowed=self.allowed_tracebacks)
        checks.check_secrets(self.directory, checks.secrets_of(self.directory, self.agents))

    async def _end_programs(self) -> dict[str, int]:
        """Agents first: with their commands."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        codes = {}
        for agent in self.agents:
            if agent.is_running:
                codes[agent.name] = await asyncio.to_thread(agent.end, signal.SIGINT)
        for program in (self.coordinator, *self.others):
            if program.is_running:
                codes[program.name] = await asyncio.to_thread(program.terminate)
        return codes

    def give_up(self) -> None:
        """After a failure: nothing is checked, everything ends."""
        for program in (*self.agents, self.coordinator, *self.others):
            program.give_up()
        for process in leftovers.processes(self.directory, mark=self.mark):
            with suppress(psutil.Error):
                process.kill()
        for group in leftovers.groups(self._state_ids):
            for part in [*group.glob("*/"), group]:
                with suppress(OSError):
                    (part / "cgroup.kill").write_text("1")
                with suppress(OSError):
                    part.rmdir()


@asynccontextmanager
async def a_world(directory: Path) -> AsyncIterator[World]:
    """Nothing runs yet. A scenario that went well ends with `close`; else everything is just ended."""
    async with AsyncExitStack() as stack:
        world = World(directory, stack)
        try:
            yield world
        finally:
            if world._client is not None:
                await world._client.close()
            world.give_up()


def _agent_command(state: Path, coordinator: str, token: Path, name: str, slots: int) -> list[str]:
    return [
        *(sys.executable, "-m", "windlass_agent.daemon", "--state", str(state)),
        *("--coordinator", coordinator, "--join-token-file", str(token)),
        *("--name", name, "--slots", str(slots)),
    ]
