"""The agent's program: starts what runs here and decides when it ends.

SIGTERM ends the agent alone: keepers and commands go on, and the next agent with the same state directory
takes them over (that is how an agent is upgraded). SIGINT, and SIGTERM with --exit-kills, end them too.

Which parts an agent has, and what each is told of the settings, is in `agent_parts.py`.
"""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from windlass_agent import doctor, leave_command, notice_command
from windlass_agent.agent_log import configure_logging
from windlass_agent.agent_parts import AgentParts, WorkParts
from windlass_agent.config import failpoint, load_settings, read_join_token
from windlass_agent.isolation.node import IsolationSettings, NodeIsolationInUse, open_isolation
from windlass_agent.link.identity import load_identity, save_identity
from windlass_agent.mounts.base import InputMounter
from windlass_agent.node import facts as node
from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.node.data_disks import DataDisks
from windlass_agent.node.gpus import gpus_of_node
from windlass_agent.node.priority import Priority, protect_from_oom
from windlass_agent.node_inputs import release_all
from windlass_agent.runner.adoption import adopt
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.cgroups import find_containment
from windlass_agent.runner.executor import ExecutorFactory
from windlass_agent.runner.orphans import end_orphans
from windlass_agent.runner.slow_attempts import SlowAttempts
from windlass_agent.settings import AgentSettings
from windlass_agent.spool.attempt_dir import remove_attempt
from windlass_agent.state_dir import StateDir
from windlass_proto import failpoints
from windlass_proto.errors import Unavailable, WindlassError

_CHORES_EVERY_S = 0.25
"""Work that waits behind a long command is looked for this often."""
_REMOVED_AT_ONCE = 64
"""Directories, by one thread: going there and back costs more than removing one."""
_CLOSE_S = 30.0
"""For keepers to end their commands when the agent is told to end everything."""

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    notice_command.NAME: notice_command.main,
    leave_command.NAME: leave_command.main,
    doctor.NAME: doctor.main,
}
"""Words to or about a running agent; without one the agent itself is started."""

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in _COMMANDS:
        return _COMMANDS[given[0]](given[1:])
    try:
        settings = load_settings(arguments)
        configure_logging(settings.log_level)
        failpoints.install_from(failpoint())
        _raise_file_limit()
        protect_from_oom()
        DataDisks(settings.disks).prepare(state=settings.state)
        state = StateDir(settings.state)
        state.open()
    except WindlassError as problem:
        return _complain(problem)
    try:
        asyncio.run(run_agent(settings, state))
    except* WindlassError as problems:
        failed = _complain(_first(problems))
    else:
        failed = 0
    finally:
        state.close()
    return failed


async def run_agent(
    settings: AgentSettings, state: StateDir, *, make_executor: ExecutorFactory | None = None
) -> None:
    """Until a signal ends it. Without `make_executor` commands run in keepers."""
    ending = _Ending(always_kill=settings.exit_kills)
    ending.listen()
    identity = load_identity(state.identity)
    save_identity(state.identity, identity)  # the state id must stay: the node's groups are named by it
    containment = find_containment(f"{identity.state_id}-{state.place}")
    containment.protect_agent()
    await asyncio.to_thread(end_orphans, containment, state.root, state.place)
    containment.remove_empty()
    isolation = await asyncio.to_thread(_open_isolation, settings, state)
    log.info("agent.isolation", chosen=isolation.describe())
    gpus = await asyncio.to_thread(gpus_of_node, settings.gpus)
    if gpus.problem:
        log.warning("gpus.unreadable", reason=gpus.problem)
    facts = node.node_facts(
        name=settings.name,
        slots=settings.slots,
        gpus=len(gpus.names),
        containment=f"{containment.describe()}; {isolation.describe()}",
    )

    parts = AgentParts(settings, state, facts, gpus=gpus, isolation=isolation.isolation)
    agent = _Agent(parts, make_executor or parts.keepers(containment))
    try:
        await agent.run(ending)
    finally:
        await agent.close(kill=ending.kill)
        await asyncio.to_thread(isolation.close, commands_ended=ending.kill)
        containment.remove_unused()
    if ending.has_left:
        await asyncio.to_thread(state.clear_work)
    if ending.problem is not None:
        raise ending.problem


def _open_isolation(settings: AgentSettings, state: StateDir) -> NodeIsolationInUse:
    work = settings.work
    asked = IsolationSettings(
        isolation=work.isolation,
        uid_range=work.uid_range,
        metadata=work.metadata,
        slots=max(settings.slots, state.slots_used()),
    )
    return open_isolation(asked, state.root)


class _Ending:
    """What signals ask for."""

    def __init__(self, *, always_kill: bool) -> None:
        self._always_kill = always_kill
        self._asked = asyncio.Event()
        self.kill = False
        self.problem: WindlassError | None = None
        self.has_left = False

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end_all if self._always_kill else self._asked.set)
        loop.add_signal_handler(signal.SIGINT, self.end_all)

    def end_all(self) -> None:
        self.kill = True
        self._asked.set()

    def leave(self) -> None:
        """The node belongs to the cluster no more."""
        self.has_left = True
        self.end_all()

    def fail(self, problem: WindlassError) -> None:
        """The agent cannot go on."""
        self.problem = problem
        self.end_all()

    async def wait(self) -> None:
        await self._asked.wait()


class _Agent:
    def __init__(self, parts: AgentParts, make_executor: ExecutorFactory) -> None:
        self._parts, self._make_executor = parts, make_executor
        self._work: WorkParts | None = None

    async def run(self, ending: _Ending) -> None:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve(ending))
            waiting = group.create_task(ending.wait())
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            waiting.cancel()

    async def close(self, *, kill: bool) -> None:
        """Leaves keepers and commands alone, or ends them."""
        if self._work is not None:
            self._work.runner.interrupt_transfers()
            if kill:
                self._parts.state.note_ended_by_agent(self._work.runner.not_ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S), asyncio.TaskGroup() as group:
                    for executor in self._work.executors:
                        group.create_task(executor.close(end_keeper=kill))
            if kill:
                await asyncio.to_thread(release_all, self._parts.state.attempts, self._parts.mounter)
            self._work.intents.close()
        await self._parts.channels.close()
        log.info("agent.stopped", commands_ended=kill)

    async def _serve(self, ending: _Ending) -> None:
        parts = self._parts
        session = parts.session()
        await session.join(read_join_token(parts.settings))
        work = self._work = parts.work_parts(self._make_executor)
        await self._adopt(work)
        async with asyncio.TaskGroup() as group:
            course = work.runner.course
            course.attach(SlowAttempts(course, parts.steps(), group, events=work.reporter, logs=work.logs))
            course.attach_containers(
                lambda attempt, what: _spawn(group, parts.container_ends.end(work.runner, attempt, what))
            )
            group.create_task(parts.container_ends.serve(work.runner))
            group.create_task(_chores(work.runner, parts.state, ending))
            group.create_task(_sweep(work.runner, parts.mounter))
            group.create_task(parts.mount_watch(work).serve())
            notices = parts.notices(work)
            group.create_task(notices.serve())
            node_watch = parts.node_watch(work)
            group.create_task(node_watch.serve())
            leaver = parts.leaver(notices, on_left=lambda: self._left(ending))
            loops = [*parts.loops(work, node_watch), lambda session: leaver.serve(session.ref)]
            group.create_task(session.serve(work.runner, loops))

    def _left(self, ending: _Ending) -> None:
        """The node is no more; an agent that starts here joins as a new one."""
        login = self._parts.login
        login.update(replace(login.identity, node_id="", credential="", last_nonce=""))
        self._parts.state.notice.unlink(missing_ok=True)
        ending.leave()

    async def _adopt(self, work: WorkParts) -> None:
        state, live = self._parts.state, work.intents.live
        if work.intents.damaged:
            log.error("intents.damaged", lines=work.intents.damaged, file=str(state.intents))
        else:
            work.runner.throw_away(state.leftovers(live))
        await adopt(
            work.runner,
            work.executors,
            work.templates,
            intents=dict(live),
            gpus=dict(work.intents.gpus),
            boot_id=self._parts.boot_id,
            ended_by_agent=state.ended_by_agent(),
            settle=self._parts.container_ends.settle,
            now_s=boot_seconds(),
        )


def _spawn(group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
    group.create_task(work)


async def _chores(runner: AttemptRunner, state: StateDir, ending: _Ending) -> None:
    """What has time: gives work back that cannot start, and looks after the agent's own place."""
    priority = Priority()
    while True:
        wanted_s = boot_seconds() + _CHORES_EVERY_S
        await asyncio.sleep(_CHORES_EVERY_S)
        now_s = boot_seconds()
        if priority.was_late(now_s - wanted_s, now_s=now_s):
            log.info("agent.priority_changed", late_s=round(now_s - wanted_s, 3))
        if state.is_removed:
            ending.fail(Unavailable(f"the state directory {state.root} was removed; what ran here is ended"))
        runner.look_after()


async def _sweep(runner: AttemptRunner, mounter: InputMounter) -> None:
    """Removes what is forgotten, many at once; a directory that hangs keeps nothing else waiting."""
    while True:
        await asyncio.sleep(_CHORES_EVERY_S)
        rubbish = runner.take_rubbish()
        for begin in range(0, len(rubbish), _REMOVED_AT_ONCE):
            some = rubbish[begin : begin + _REMOVED_AT_ONCE]
            for directory, left in zip(
                some, await asyncio.to_thread(_remove_all, some, mounter), strict=True
            ):
                if left:
                    log.warning("attempt.directory_left", directory=str(directory), entries=left)


def _remove_all(directories: Sequence[Path], mounter: InputMounter) -> list[int]:
    for directory in directories:
        mounter.release(directory)
    return [remove_attempt(directory) for directory in directories]


def _raise_file_limit() -> None:
    """Each running command takes a few descriptors; the usual soft limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _first(problems: BaseExceptionGroup[WindlassError]) -> WindlassError:
    first = problems.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _complain(problem: WindlassError) -> int:
    print(f"windlass-agent: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
