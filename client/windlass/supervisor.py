"""Keeps the programs of laptop mode running, and ends them all when it is told to.

It is a parent only: what the programs do is theirs. A program that ends by itself is started again with a
growing pause, on the same ports and the same data, so a kill -9 heals without anybody's help.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from windlass import environment, processes
from windlass.client import Client
from windlass.laptop import Laptop, LaptopState, Ports, agent_name
from windlass.processes import ProcessIdentity, identity_of
from windlass_proto.errors import Unavailable, WindlassError
from windlass_proto.model.states import NodeState
from windlass_proto.model.storage import StorageProfile

READY_WITHIN = timedelta(seconds=60)
"""First start on a slow machine: migrations, interpreter starts, joins."""
END_WITHIN = timedelta(seconds=15)
"""An agent gives its commands a grace before it kills them."""
_JOIN_TOKEN_VALID = timedelta(minutes=10)
_PAUSE_FIRST_S = 0.3
_PAUSE_LONGEST_S = 30.0
_STEADY_S = 60.0
_TRIES_BEFORE_READY = 4
"""Later a program is started again for ever; one that never ran is not going to."""
_LOOK_EVERY_S = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProgram:
    """One program and how to start it; the command may need a fresh join token, so it is asked for."""

    name: str
    command: Callable[[], Awaitable[list[str]]]
    environment: Mapping[str, str]
    log: Path


class Supervisor:
    """Runs one laptop. `say` gets one line for everything a person should know."""

    def __init__(self, laptop: Laptop, *, ports: Ports, agents: int, slots: int, say: Say) -> None:
        self._laptop = laptop
        self._ports = ports
        self._agents = agents
        self._slots = slots
        self._say = say
        self._children: dict[str, ProcessIdentity] = {}
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()
        self._failure: WindlassError | None = None
        self._is_ready = False

    def stop(self) -> None:
        """Asks `run` to end everything and return. May be called from a signal handler of the loop."""
        self._stopping.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Starts everything, calls `on_ready` when work can be done, returns when all has ended.

        Raises what kept the system from getting ready, after everything has ended.
        """
        local = self._laptop.write_profiles(self._ports)
        async with asyncio.TaskGroup() as group:
            bringing_up = group.create_task(self._bring_up(group, local, on_ready=on_ready))
            await self._stopping.wait()
            bringing_up.cancel()
            await self._end_all()
        self._laptop.write_state(LaptopState(children={}, ports=self._ports))
        if self._failure is not None:
            raise self._failure

    def _first_programs(self, local: StorageProfile) -> list[ChildProgram]:
        laptop = self._laptop
        return [
            ChildProgram(
                name="store",
                command=_always(laptop.store_command(self._ports)),
                environment=laptop.store_environment(local),
                log=laptop.logs / "store.log",
            ),
            ChildProgram(
                name="coordinator",
                command=_always(laptop.coordinator_command(self._ports)),
                environment=environment.for_children(),
                log=laptop.logs / "coordinator.log",
            ),
        ]

    def _agent_program(self, number: int) -> ChildProgram:
        return ChildProgram(
            name=f"agent {number}",
            command=partial(self._agent_command, number),
            environment=environment.for_children(),
            log=self._laptop.logs / f"agent-{number}.log",
        )

    async def _agent_command(self, number: int) -> list[str]:
        async with Client(self._laptop.profile()) as client:
            token, _ = await client.create_join_token(valid_for=_JOIN_TOKEN_VALID)
        return self._laptop.agent_command(number, ports=self._ports, slots=self._slots, join_token=token)

    async def _bring_up(
        self, group: asyncio.TaskGroup, local: StorageProfile, *, on_ready: Callable[[], None]
    ) -> None:
        give_up_at = time.monotonic() + READY_WITHIN.total_seconds()
        try:
            for child in self._first_programs(local):
                group.create_task(self._keep(child))
            await self._ready("store", self._store_answers, give_up_at)
            await self._ready("coordinator", self._coordinator_answers, give_up_at)
            for number in range(1, self._agents + 1):
                group.create_task(self._keep(self._agent_program(number)))
            async with Client(self._laptop.profile()) as client:
                await self._ready("agents", partial(self._agents_are_ready, client), give_up_at)
        except WindlassError as error:
            self._fail(error)
            return
        self._is_ready = True
        self._write_state()
        on_ready()

    async def _ready(self, name: str, check: Callable[[], Awaitable[bool]], give_up_at: float) -> None:
        while not await check():
            if time.monotonic() > give_up_at:
                raise Unavailable(f"the {name} did not get ready in time: see {self._laptop.logs}/")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _fail(self, error: WindlassError) -> None:
        """What keeps the system from getting ready ends it."""
        self._failure = self._failure or error
        self._stopping.set()

    async def _store_answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._ports.store)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def _coordinator_answers(self) -> bool:
        child = self._children.get("coordinator")
        return child is not None and self._laptop.coordinator_pid() == child.pid

    async def _agents_are_ready(self, client: Client) -> bool:
        nodes = await client.nodes()
        ready = {node.name for node in nodes if node.state is NodeState.READY}
        return {agent_name(number) for number in range(1, self._agents + 1)} <= ready

    async def _keep(self, child: ChildProgram) -> None:
        """Starts the program again and again until everything is to end."""
        pause_s = _PAUSE_FIRST_S
        for tries in itertools.count(1):
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                outcome = await self._run_once(child)
            except WindlassError as error:
                outcome = f"could not be started ({error})"
            if self._stopping.is_set():
                return
            if tries >= _TRIES_BEFORE_READY and not self._is_ready:
                self._fail(Unavailable(f"{child.name} {outcome}, {tries} times: see {child.log}"))
                return
            if time.monotonic() - began > _STEADY_S:
                pause_s = _PAUSE_FIRST_S
            self._say(f"{child.name} {outcome}; starting it again in {pause_s:.1f} s (log: {child.log})")
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pause_s = min(pause_s * 2, _PAUSE_LONGEST_S)

    async def _run_once(self, child: ChildProgram) -> str:
        command = await child.command()
        async with self._starting:
            if self._stopping.is_set():
                return "is not wanted any more"
            process = await self._start(child, command)
        try:
            code = await process.wait()
        finally:
            self._children.pop(child.name, None)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    async def _start(self, child: ChildProgram, command: Sequence[str]) -> asyncio.subprocess.Process:
        with child.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the supervisor alone, which ends them in order.
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child.environment,
                cwd=self._laptop.directory,
                start_new_session=True,
            )
        identity = identity_of(process.pid)
        if identity is not None:
            self._children[child.name] = identity
            self._write_state()
        return process

    async def _end_all(self) -> None:
        """Agents first, while there is a coordinator to tell; then the others; then whatever is left."""
        async with self._starting:  # nothing is being started from here on
            known = dict(self._children)
        agents = [child for name, child in known.items() if name.startswith("agent ")]
        rest = [child for child in known.values() if child not in agents]
        for group in (agents, rest):
            await asyncio.to_thread(processes.end, group, grace=END_WITHIN)
        await asyncio.to_thread(_kill_leftovers, self._laptop, LaptopState(children=known, ports=self._ports))

    def _write_state(self) -> None:
        self._laptop.write_state(
            LaptopState(
                supervisor=identity_of(os.getpid()),
                children=dict(self._children),
                ports=self._ports,
                agents=self._agents,
                slots=self._slots,
                is_ready=self._is_ready,
            )
        )


async def run_until_signalled(supervisor: Supervisor, on_ready: Callable[[], None]) -> None:
    """Until Ctrl-C, SIGTERM or the terminal goes away."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    async with AsyncExitStack() as stack:
        for number in numbers:
            loop.add_signal_handler(number, supervisor.stop)
            stack.callback(loop.remove_signal_handler, number)
        await supervisor.run(on_ready)


def end_leftovers(laptop: Laptop) -> int:
    """Ends what a supervisor that was killed has left behind; how many processes that were."""
    left = laptop.leftovers(laptop.read_state())
    processes.end(left, grace=END_WITHIN)
    _kill_leftovers(laptop, laptop.read_state())
    return len(left)


def _kill_leftovers(laptop: Laptop, state: LaptopState) -> None:
    left = laptop.leftovers(state)
    for one in left:
        one.send(signal.SIGKILL)
    processes.wait_until_ended(left, timeout=END_WITHIN)


def _always(command: list[str]) -> Callable[[], Awaitable[list[str]]]:
    async def give() -> list[str]:
        return command

    return give
