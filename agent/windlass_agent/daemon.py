"""The agent's program: wires its parts together and decides when it ends.

SIGTERM ends the agent alone: keepers and commands go on, and the next agent with the same state directory
takes them over (that is how an agent is upgraded). SIGINT, and SIGTERM with --exit-kills, end them too.
"""

import asyncio
import contextlib
import resource
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from windlass_agent import doctor, leave_command, notice_command
from windlass_agent.agent_log import configure_logging
from windlass_agent.config import failpoint, load_settings, load_storage, read_join_token
from windlass_agent.containers.base import EngineSetting
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.core.intake import Intake
from windlass_agent.core.isolation import NodeIsolation
from windlass_agent.core.prefetch import PrefetchLimits
from windlass_agent.core.slots import HandOverLimits
from windlass_agent.isolation.machine import find_bwrap
from windlass_agent.isolation.node import IsolationSettings, NodeIsolationInUse, open_isolation
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.current_session import CurrentSession
from windlass_agent.link.heartbeat import Heartbeat
from windlass_agent.link.identity import load_identity, save_identity
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.link.leaver import Leaver
from windlass_agent.link.log_shipper import LogShipper
from windlass_agent.link.output_gate import CoordinatorGate
from windlass_agent.link.poller import Poller
from windlass_agent.link.releaser import Releaser
from windlass_agent.link.reporter import Reporter
from windlass_agent.link.secrets import SecretFetcher
from windlass_agent.link.session import Loop, NodeLogin, SessionKeeper
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import InputMounter
from windlass_agent.node import facts as node
from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.node.data_disks import DataDisks
from windlass_agent.node.gpus import NodeGpus, gpus_of_node
from windlass_agent.node.priority import Priority, protect_from_oom
from windlass_agent.node_inputs import make_mounter, release_all
from windlass_agent.runner.adoption import adopt
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.cgroups import find_containment
from windlass_agent.runner.container_ends import ContainerEnds
from windlass_agent.runner.executor import Executor, ExecutorFactory, OnKeeperLost, OnRecord
from windlass_agent.runner.keeper_client import Slot
from windlass_agent.runner.keeper_process import KeeperSettings
from windlass_agent.runner.mount_watch import MountWatch
from windlass_agent.runner.node_watch import NodeWatch
from windlass_agent.runner.notice import NoticeWatch
from windlass_agent.runner.orphans import end_orphans
from windlass_agent.runner.package_cache import PackageCache
from windlass_agent.runner.slow_attempts import SlowAttempts
from windlass_agent.runner.spool_quota import SpoolLimits, SpoolQuota, node_limit
from windlass_agent.runner.start_queue import QueueSettings, StartQueue
from windlass_agent.runner.step_runner import StepRunner
from windlass_agent.runner.steps.base import StepSettings
from windlass_agent.runner.steps.container import ContainerStep
from windlass_agent.runner.steps.secrets import SecretsStep
from windlass_agent.runner.task_template import TaskTemplates
from windlass_agent.settings import AgentSettings, WorkSettings, inputs_of
from windlass_agent.spool.attempt_dir import remove_attempt
from windlass_agent.spool.disk_space import disk_space
from windlass_agent.spool.intents import IntentJournal
from windlass_agent.state_dir import StateDir
from windlass_proto import failpoints
from windlass_proto.errors import Unavailable, WindlassError
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.status import NodeFacts

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

    def keeper_slot(number: int, on_record: OnRecord, on_keeper_lost: OnKeeperLost) -> Executor:
        return Slot(
            number,
            directory=state.slot(number),
            containment=containment,
            evidence=state.evidence,
            installed_build=node.installed_version,
            on_record=on_record,
            on_keeper_lost=on_keeper_lost,
            settings=KeeperSettings(
                build=facts.agent_version,
                pids_max=settings.work.pids_max,
                crash_at=failpoint(),
                state=str(state.root),
                uids=isolation.isolation.users_of(number),
                bwrap=find_bwrap(),
                cpu_limits=settings.work.cpu_limits,
            ),
        )

    agent = _Agent(
        settings, state, facts, make_executor or keeper_slot, gpus=gpus, isolation=isolation.isolation
    )
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What exists once the node has an identity."""

    runner: AttemptRunner
    executors: Sequence[Executor]
    templates: TaskTemplates
    intents: IntentJournal
    logs: LogShipper
    reporter: Reporter


class _Agent:
    def __init__(
        self,
        settings: AgentSettings,
        state: StateDir,
        facts: NodeFacts,
        make_executor: ExecutorFactory,
        *,
        gpus: NodeGpus,
        isolation: NodeIsolation,
    ) -> None:
        self._settings, self._state, self._facts = settings, state, facts
        self._gpus, self._isolation = gpus, isolation
        self._make_executor = make_executor
        self._boot_id = node.boot_id()
        self._login = NodeLogin(state.identity, load_identity(state.identity))
        self._intake = Intake()
        self._watch = LeaseWatch(clock=boot_seconds)
        self._channels = Channels(
            settings.coordinator,
            keepalive=settings.link.keepalive,
            keepalive_timeout=settings.link.keepalive_timeout,
        )
        self._caller = Caller(
            backoff=Backoff(base=settings.link.retry_base, ceiling=settings.link.retry_ceiling),
            credential=self._login.credential,
            check=self._watch.check,
            renew=self._channels.renew,
        )
        self._mounter = make_mounter(settings, self._boot_id)
        self._containers = _node_containers(settings.work, state)
        self._container_ends = ContainerEnds(self._containers, directory_of=state.attempt)
        self._current = CurrentSession(self._caller, timeout_s=settings.link.call_timeout.total_seconds())
        self._gate = CoordinatorGate(
            self._channels,
            self._caller,
            self._watch,
            current=self._current,
            clock=boot_seconds,
        )
        self._work: _Work | None = None

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
                self._state.note_ended_by_agent(self._work.runner.not_ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S), asyncio.TaskGroup() as group:
                    for executor in self._work.executors:
                        group.create_task(executor.close(end_keeper=kill))
            if kill:
                await asyncio.to_thread(release_all, self._state.attempts, self._mounter)
            self._work.intents.close()
        await self._channels.close()
        log.info("agent.stopped", commands_ended=kill)

    async def _serve(self, ending: _Ending) -> None:
        session = SessionKeeper(
            self._channels,
            self._caller,
            login=self._login,
            facts=self._facts,
            boot_id=self._boot_id,
            watch=self._watch,
            timeout_s=self._settings.link.call_timeout.total_seconds(),
            clock=boot_seconds,
        )
        await session.join(read_join_token(self._settings))
        work = self._work = self._build()
        await self._adopt(work)
        async with asyncio.TaskGroup() as group:
            slow = SlowAttempts(work.runner, self._steps(), group, events=work.reporter, logs=work.logs)
            work.runner.attach(slow)
            work.runner.attach_containers(
                lambda attempt, what: _spawn(group, self._container_ends.end(work.runner, attempt, what))
            )
            group.create_task(self._container_ends.serve(work.runner))
            group.create_task(_chores(work.runner, self._state, ending))
            group.create_task(_sweep(work.runner, self._mounter))
            mount_watch = MountWatch(work.runner, self._mounter, directory_of=self._state.attempt)
            group.create_task(mount_watch.serve())
            notices = NoticeWatch(
                self._state.notice, work.runner, self._intake, boot_id=self._boot_id, clock=boot_seconds
            )
            group.create_task(notices.serve())
            node_watch = self._node_watch(work)
            group.create_task(node_watch.serve())
            loops = self._loops(work, node_watch)
            leaver = Leaver(
                self._channels,
                self._caller,
                notices.leave_due,
                reason=lambda: notices.reason,
                on_left=lambda: self._left(ending),
                timeout_s=self._settings.link.call_timeout.total_seconds(),
            )
            loops.append(lambda session: leaver.serve(session.ref))
            group.create_task(session.serve(work.runner, loops))

    def _left(self, ending: _Ending) -> None:
        """The node is no more; an agent that starts here joins as a new one."""
        self._login.update(replace(self._login.identity, node_id="", credential="", last_nonce=""))
        self._state.notice.unlink(missing_ok=True)
        ending.leave()

    def _build(self) -> _Work:
        settings, link = self._settings, self._settings.link
        reporter = Reporter(
            self._channels,
            self._caller,
            coalesce_s=link.report_coalesce.total_seconds(),
            most=link.report_most,
            timeout_s=link.call_timeout.total_seconds(),
            clock=boot_seconds,
        )
        logs = LogShipper(
            self._channels,
            self._caller,
            window_bytes=link.log_window_bytes,
            chunk_bytes=link.log_chunk_bytes,
            attempt_bytes=settings.spool.per_attempt_bytes,
            directory_of=self._state.attempt,
            clock=boot_seconds,
        )
        templates = TaskTemplates(
            self._variables(),
            kill_grace=settings.work.kill_grace,
            mounts=inputs_of(settings.mounts),
            isolation=self._isolation,
        )
        intents = IntentJournal(self._state.intents, evidence=self._state.evidence)
        executors: list[Executor] = []
        runner = AttemptRunner(
            executors,
            templates,
            StartQueue(
                self._facts.capacity, self._queue_settings(), clock=boot_seconds, gpus=self._gpus.names
            ),
            intents=intents,
            boot_id=self._boot_id,
            events=reporter,
            logs=logs,
            directory_of=self._state.attempt,
            output_directory=self._state.attempt_text,
            clock=boot_seconds,
        )
        for number in range(max(settings.slots, self._state.slots_used())):
            executors.append(self._make_executor(number, runner.on_record, runner.on_keeper_lost))
        reporter.attach(runner)
        logs.attach(runner.logs_complete)
        return _Work(
            runner=runner,
            executors=executors,
            templates=templates,
            intents=intents,
            logs=logs,
            reporter=reporter,
        )

    async def _adopt(self, work: _Work) -> None:
        live = work.intents.live
        if work.intents.damaged:
            log.error("intents.damaged", lines=work.intents.damaged, file=str(self._state.intents))
        else:
            work.runner.throw_away(self._state.leftovers(live))
        await adopt(
            work.runner,
            work.executors,
            work.templates,
            intents=dict(live),
            gpus=dict(work.intents.gpus),
            boot_id=self._boot_id,
            ended_by_agent=self._state.ended_by_agent(),
            settle=self._container_ends.settle,
            now_s=boot_seconds(),
        )

    def _node_watch(self, work: _Work) -> NodeWatch:
        spool, disk, runner = self._settings.spool, self._settings.disk, work.runner
        node_bytes = spool.per_node_bytes or node_limit(disk_space(self._state.root))
        quota = SpoolQuota(
            work.executors,
            SpoolLimits(per_attempt_bytes=spool.per_attempt_bytes, per_node_bytes=node_bytes),
            slots=self._settings.slots,
            backlog=lambda: work.logs.backlog_bytes,
        )
        return NodeWatch(
            self._intake,
            quota,
            state_dir=self._state.root,
            disks=DataDisks(self._settings.disks),
            reserve=DiskFloor(size_bytes=disk.reserve_bytes, inodes=disk.reserve_inodes),
            ended=lambda: runner.not_running,
            ended_most=spool.ended_most,
            try_state=work.intents.try_to_write,
            on_open=runner.demand_changed.set,
        )

    def _loops(self, work: _Work, node_watch: NodeWatch) -> list[Loop]:
        link, channels, caller = self._settings.link, self._channels, self._caller
        timeout_s = link.call_timeout.total_seconds()
        poller = Poller(channels, caller, work.runner, self._intake, wait=link.poll_wait, timeout_s=timeout_s)
        heartbeat = Heartbeat(
            channels,
            caller,
            work.runner,
            self._intake,
            self._watch,
            usage=lambda: node_watch.usage,
            clock=boot_seconds,
        )
        releaser = Releaser(channels, caller, work.runner, timeout_s=timeout_s)
        return [
            lambda session: poller.serve(session.ref, wait=session.timing.poll_wait),
            lambda session: heartbeat.serve(session.ref),
            lambda session: self._current.serve(session.ref),
            lambda _session: self._watch.serve(work.runner),
            lambda session: work.reporter.serve(session.ref),
            lambda session: work.logs.serve(session.ref),
            lambda session: releaser.serve(session.ref),
        ]

    def _steps(self) -> StepRunner:
        work = self._settings.work
        storages = Storages(load_storage(self._settings.storage), threads=work.transfer_threads)
        limits = StepSettings(
            package_limit_bytes=work.package_limit_bytes,
            package_limit_entries=work.package_limit_entries,
            package_limit_ratio=work.package_limit_ratio,
            package_timeout=work.package_timeout,
            mount_timeout=work.mount_timeout,
            upload_timeout=work.upload_timeout,
        )
        return StepRunner(
            storages,
            limits,
            mounter=self._mounter,
            gate=self._gate,
            containers=ContainerStep(self._containers, pids_max=work.pids_max),
            secrets=SecretsStep(SecretFetcher(self._channels, self._current), storages),
            packages=PackageCache(self._state.packages, limit_bytes=work.package_cache_bytes),
            directory_of=self._state.attempt,
            may_bind=node.is_root(),
            isolation=self._isolation,
            clock=boot_seconds,
        )

    def _queue_settings(self) -> QueueSettings:
        work = self._settings.work
        return QueueSettings(
            prefetch=PrefetchLimits(ahead=work.prefetch, most=work.prefetch_most),
            hand_over=HandOverLimits(ahead=work.keeper_ahead, most=work.keeper_most),
            give_back_after_s=work.give_back_after.total_seconds(),
        )

    def _variables(self) -> NodeVariables:
        chosen, identity, account = self._settings.variables, self._login.identity, node.account()
        return NodeVariables(
            node_id=identity.node_id,
            node_name=self._facts.name,
            path=chosen.path,
            home=account.home,
            user=account.user,
            lang=chosen.lang,
            tmpdir=chosen.tmpdir,
            region=chosen.region,
            oss_host=chosen.oss_host,
            worker_id=chosen.worker_id or identity.node_id,
            gives_gpus=self._gpus.are_given_out,
        )


def _node_containers(work: WorkSettings, state: StateDir) -> NodeContainers:
    setting = EngineSetting(
        engine=work.container_engine,
        socket=work.container_socket,
        options=tuple(shlex.split(work.container_options)),
    )
    return NodeContainers(setting, home=state.containers, place=state.place)


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
