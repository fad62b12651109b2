"""Which parts an agent has, and what each of them is told of the settings.

Concrete parts are wired together here. When they start and end is decided in `daemon.py`.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass_agent.config import failpoint, load_storage
from windlass_agent.containers.base import EngineSetting
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.core.intake import Intake
from windlass_agent.core.isolation import NodeIsolation
from windlass_agent.core.prefetch import PrefetchLimits
from windlass_agent.core.slots import HandOverLimits
from windlass_agent.isolation.machine import find_bwrap
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.current_session import CurrentSession
from windlass_agent.link.heartbeat import Heartbeat
from windlass_agent.link.identity import load_identity
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
from windlass_agent.node import facts as node
from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.node.data_disks import DataDisks
from windlass_agent.node.gpus import NodeGpus
from windlass_agent.node_inputs import make_mounter
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.cgroups import Containment
from windlass_agent.runner.container_ends import ContainerEnds
from windlass_agent.runner.executor import Executor, ExecutorFactory, OnKeeperLost, OnRecord
from windlass_agent.runner.keeper_client import Slot
from windlass_agent.runner.keeper_process import KeeperSettings
from windlass_agent.runner.mount_watch import MountWatch
from windlass_agent.runner.node_watch import NodeWatch
from windlass_agent.runner.notice import NoticeWatch
from windlass_agent.runner.package_cache import PackageCache
from windlass_agent.runner.spool_quota import SpoolLimits, SpoolQuota, node_limit
from windlass_agent.runner.start_queue import QueueSettings, StartQueue
from windlass_agent.runner.step_runner import StepRunner
from windlass_agent.runner.steps.base import StepSettings
from windlass_agent.runner.steps.container import ContainerStep
from windlass_agent.runner.steps.secrets import SecretsStep
from windlass_agent.runner.task_template import TaskTemplates
from windlass_agent.settings import AgentSettings, WorkSettings, inputs_of
from windlass_agent.spool.disk_space import disk_space
from windlass_agent.spool.intents import IntentJournal
from windlass_agent.state_dir import StateDir
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.status import NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkParts:
    """What exists once the node has an identity."""

    runner: AttemptRunner
    executors: Sequence[Executor]
    templates: TaskTemplates
    intents: IntentJournal
    logs: LogShipper
    reporter: Reporter


class AgentParts:
    """What is there from the start, and how the rest is made."""

    def __init__(
        self,
        settings: AgentSettings,
        state: StateDir,
        facts: NodeFacts,
        *,
        gpus: NodeGpus,
        isolation: NodeIsolation,
    ) -> None:
        self.settings, self.state, self._facts = settings, state, facts
        self._gpus, self._isolation = gpus, isolation
        self.boot_id = node.boot_id()
        self.login = NodeLogin(state.identity, load_identity(state.identity))
        self._intake = Intake()
        self._watch = LeaseWatch(clock=boot_seconds)
        self.channels = Channels(
            settings.coordinator,
            keepalive=settings.link.keepalive,
            keepalive_timeout=settings.link.keepalive_timeout,
        )
        self._caller = Caller(
            backoff=Backoff(base=settings.link.retry_base, ceiling=settings.link.retry_ceiling),
            credential=self.login.credential,
            check=self._watch.check,
            renew=self.channels.renew,
            reconnect_within=lambda: self._watch.reconnect_within,
        )
        self.mounter = make_mounter(settings, self.boot_id)
        self._containers = _node_containers(settings.work, state)
        self.container_ends = ContainerEnds(self._containers, directory_of=state.attempt)
        self._current = CurrentSession(self._caller, timeout_s=settings.link.call_timeout.total_seconds())
        self._gate = CoordinatorGate(
            self.channels,
            self._caller,
            self._watch,
            current=self._current,
            clock=boot_seconds,
        )

    def keepers(self, containment: Containment) -> ExecutorFactory:
        """A keeper for each slot; it runs the commands."""
        settings, state, facts, isolation = self.settings, self.state, self._facts, self._isolation

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
                    uids=isolation.users_of(number),
                    bwrap=find_bwrap(),
                    cpu_limits=settings.work.cpu_limits,
                ),
            )

        return keeper_slot

    def session(self) -> SessionKeeper:
        return SessionKeeper(
            self.channels,
            self._caller,
            login=self.login,
            facts=self._facts,
            boot_id=self.boot_id,
            watch=self._watch,
            timeout_s=self.settings.link.call_timeout.total_seconds(),
            clock=boot_seconds,
        )

    def work_parts(self, make_executor: ExecutorFactory) -> WorkParts:
        settings, link = self.settings, self.settings.link
        reporter = Reporter(
            self.channels,
            self._caller,
            coalesce_s=link.report_coalesce.total_seconds(),
            most=link.report_most,
            timeout_s=link.call_timeout.total_seconds(),
            clock=boot_seconds,
        )
        logs = LogShipper(
            self.channels,
            self._caller,
            window_bytes=link.log_window_bytes,
            chunk_bytes=link.log_chunk_bytes,
            attempt_bytes=settings.spool.per_attempt_bytes,
            directory_of=self.state.attempt,
            clock=boot_seconds,
        )
        templates = TaskTemplates(
            self._variables(),
            kill_grace=settings.work.kill_grace,
            mounts=inputs_of(settings.mounts),
            isolation=self._isolation,
        )
        intents = IntentJournal(self.state.intents, evidence=self.state.evidence)
        executors: list[Executor] = []
        runner = AttemptRunner(
            executors,
            templates,
            StartQueue(
                self._facts.capacity, self._queue_settings(), clock=boot_seconds, gpus=self._gpus.names
            ),
            intents=intents,
            boot_id=self.boot_id,
            events=reporter,
            logs=logs,
            directory_of=self.state.attempt,
            output_directory=self.state.attempt_text,
            clock=boot_seconds,
        )
        for number in range(max(settings.slots, self.state.slots_used())):
            executors.append(make_executor(number, runner.on_record, runner.course.on_keeper_lost))
        reporter.attach(runner)
        logs.attach(runner.logs_complete)
        return WorkParts(
            runner=runner,
            executors=executors,
            templates=templates,
            intents=intents,
            logs=logs,
            reporter=reporter,
        )

    def node_watch(self, work: WorkParts) -> NodeWatch:
        spool, disk, runner = self.settings.spool, self.settings.disk, work.runner
        node_bytes = spool.per_node_bytes or node_limit(disk_space(self.state.root))
        quota = SpoolQuota(
            work.executors,
            SpoolLimits(per_attempt_bytes=spool.per_attempt_bytes, per_node_bytes=node_bytes),
            slots=self.settings.slots,
            backlog=lambda: work.logs.backlog_bytes,
        )
        return NodeWatch(
            self._intake,
            quota,
            state_dir=self.state.root,
            disks=DataDisks(self.settings.disks),
            reserve=DiskFloor(size_bytes=disk.reserve_bytes, inodes=disk.reserve_inodes),
            ended=lambda: runner.not_running,
            ended_most=spool.ended_most,
            try_state=work.intents.try_to_write,
            on_open=runner.demand_changed.set,
        )

    def mount_watch(self, work: WorkParts) -> MountWatch:
        return MountWatch(work.runner, self.mounter, directory_of=self.state.attempt)

    def notices(self, work: WorkParts) -> NoticeWatch:
        return NoticeWatch(
            self.state.notice, work.runner, self._intake, boot_id=self.boot_id, clock=boot_seconds
        )

    def leaver(self, notices: NoticeWatch, *, on_left: Callable[[], None]) -> Leaver:
        return Leaver(
            self.channels,
            self._caller,
            notices.leave_due,
            reason=lambda: notices.reason,
            on_left=on_left,
            timeout_s=self.settings.link.call_timeout.total_seconds(),
        )

    def loops(self, work: WorkParts, node_watch: NodeWatch) -> list[Loop]:
        link, channels, caller = self.settings.link, self.channels, self._caller
        timeout_s = link.call_timeout.total_seconds()
        poller = Poller(
            channels,
            caller,
            work.runner,
            self._intake,
            self._watch,
            wait=link.poll_wait,
            timeout_s=timeout_s,
            clock=boot_seconds,
        )
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
            lambda session: poller.serve(session.ref),
            lambda session: heartbeat.serve(session.ref),
            lambda session: self._current.serve(session.ref),
            lambda _session: self._watch.serve(work.runner),
            lambda session: work.reporter.serve(session.ref),
            lambda session: work.logs.serve(session.ref),
            lambda session: releaser.serve(session.ref),
        ]

    def steps(self) -> StepRunner:
        work = self.settings.work
        storages = Storages(load_storage(self.settings.storage), threads=work.transfer_threads)
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
            mounter=self.mounter,
            gate=self._gate,
            containers=ContainerStep(
                self._containers, pids_max=work.pids_max, group=self._isolation.container_group
            ),
            secrets=SecretsStep(SecretFetcher(self.channels, self._current), storages),
            packages=PackageCache(self.state.packages, limit_bytes=work.package_cache_bytes),
            directory_of=self.state.attempt,
            may_bind=node.is_root(),
            isolation=self._isolation,
            clock=boot_seconds,
            boot_id=self.boot_id,
        )

    def _queue_settings(self) -> QueueSettings:
        work = self.settings.work
        return QueueSettings(
            prefetch=PrefetchLimits(ahead=work.prefetch, most=work.prefetch_most),
            hand_over=HandOverLimits(ahead=work.keeper_ahead, most=work.keeper_most),
            give_back_after_s=work.give_back_after.total_seconds(),
        )

    def _variables(self) -> NodeVariables:
        chosen, identity, account = self.settings.variables, self.login.identity, node.account()
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
