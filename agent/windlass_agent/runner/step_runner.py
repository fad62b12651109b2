"""Takes an attempt through its steps: all that comes before and after its command.

What was done after the command is written down (the final record), so that an agent that starts in between
does not do it twice.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from windlass_agent.core.isolation import NodeIsolation
from windlass_agent.core.mount_plan import MountRefused, plan_mounts
from windlass_agent.core.output_gate import OutputGate
from windlass_agent.core.run_plan import CommandPlan, ExitRecord
from windlass_agent.keeper.record import owner_of
from windlass_agent.mounts.base import InputMounter, StorageOpener
from windlass_agent.runner.package_cache import PackageCache
from windlass_agent.runner.steps import command, handing_over, mounts, outputs, package, workdir
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepFailure, StepSettings
from windlass_agent.runner.steps.clock import PhaseLimit, PhaseOver, within
from windlass_agent.runner.steps.container import ContainerStep
from windlass_agent.runner.steps.phase_record import PhaseRecord
from windlass_agent.runner.steps.secrets import SecretsStep
from windlass_agent.runner.task_template import TaskTemplate
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_agent.spool.durable import write_whole
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.specs import Isolation
from windlass_proto.model.states import LogStream

_Step = Callable[[StepContext], Awaitable[StepFailure | None]]
_RELEASE = PhaseLimit(phase="unmount", limit=timedelta(seconds=30), setting="")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRecord:
    """What became of an attempt's results; "" = everything is where it should be."""

    failure: str
    note: str = ""
    """What is worth knowing and no failure."""


class StepRunner:
    def __init__(
        self,
        storages: StorageOpener,
        settings: StepSettings,
        *,
        mounter: InputMounter,
        packages: PackageCache,
        containers: ContainerStep,
        gate: OutputGate,
        secrets: SecretsStep,
        directory_of: Callable[[AttemptRef], Path],
        may_bind: bool,
        clock: Callable[[], float],
        boot_id: str = "",
        isolation: NodeIsolation | None = None,
    ) -> None:
        self._isolation = isolation or NodeIsolation()
        self._storages, self._settings = storages, settings
        self._mounter, self._packages, self._containers = mounter, packages, containers
        self._gate = gate
        self._secrets = secrets
        self._directory_of, self._may_bind, self._clock = directory_of, may_bind, clock
        self._boot_id = boot_id

    def context(
        self, ref: AttemptRef, template: TaskTemplate, gpus: tuple[str, ...] = (), *, slot: int | None = None
    ) -> StepContext | StepFailure:
        if template.refusal and not template.spec.container:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=template.refusal)
        folders = AttemptFolders(root=self._directory_of(ref))
        try:
            planned = plan_mounts(
                template.spec,
                work=folders.work,
                mounts=folders.mounts,
                own=folders.root.parent.parent,
                may_bind=self._may_bind or template.spec.container is not None,
            )
        except MountRefused as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))
        return StepContext(
            ref=ref,
            job_id=template.job_id,
            spec=template.spec,
            folders=folders,
            storages=self._storages,
            mounter=self._mounter,
            gate=self._gate,
            settings=self._settings,
            mounts=planned,
            gpus=gpus,
            owner=self._owner(ref, template, slot),
        )

    def _owner(self, ref: AttemptRef, template: TaskTemplate, slot: int | None) -> int:
        """As the slot's keeper works it out too."""
        if template.isolation is Isolation.DEV or slot is None or template.spec.container:
            return 0
        return owner_of(ref.fence, self._isolation.users_of(slot))

    async def prepare(self, context: StepContext, template: TaskTemplate) -> CommandPlan | StepFailure:
        """Everything up to the command; may be done again after an interruption."""
        outcome = await self._prepare(context, template)
        if isinstance(outcome, StepFailure):
            await self.release(context)
        return outcome

    async def release(self, context: StepContext) -> None:
        """Takes the inputs off."""
        with suppress(PhaseOver):
            await within(_RELEASE, context, partial(mounts.release, context), clock=self._clock)

    async def judge(self, context: StepContext, record: ExitRecord) -> ExitRecord:
        """As the command's end looks when the mounts of its inputs are taken into account."""
        return await mounts.judge(context, record)

    async def _prepare(self, context: StepContext, template: TaskTemplate) -> CommandPlan | StepFailure:
        spec, settings = context.spec, self._settings
        fetch_package = partial(package.fetch_and_unpack, cache=self._packages)
        package_limit = spec.package_timeout or settings.package_timeout
        get_image = partial(self._containers.get_image, limit_s=package_limit.total_seconds())
        mount_limit = spec.mount_timeout or settings.mount_timeout
        steps: tuple[tuple[str, timedelta, str, _Step], ...] = (
            ("mount", mount_limit, "mount_timeout", mounts.clear_left),
            ("work directory", mount_limit, "mount_timeout", workdir.make_directories),
            ("stored secrets", mount_limit, "mount_timeout", self._secrets.for_preparation),
            ("package", package_limit, "package_timeout", fetch_package),
            ("image", package_limit, "package_timeout", get_image),
            ("mount", mount_limit, "mount_timeout", mounts.show_inputs),
            ("work directory", mount_limit, "mount_timeout", handing_over.hand_over),
        )
        record = self._phase_record(context)
        for number, (phase, limit, setting, step) in enumerate(steps):
            clock = PhaseLimit(phase=phase, limit=limit, setting=setting, key=f"{number} {phase}")
            try:
                doing = partial(step, context)
                failure = await within(clock, context, doing, clock=self._clock, record=record)
            except PhaseOver as problem:
                failure = StepFailure(kind=FailureKind.INFRA_PREPARE, reason=str(problem))
            if failure is not None or context.cancelled.is_set():
                return failure or StepFailure(kind=FailureKind.USER_CONFIG, reason="it was stopped")
        try:
            plan = command.command_plan(context, template)
            return plan if spec.container is None else self._containers.plan(context, template, plan)
        except MountRefused as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))

    async def finalize(self, context: StepContext, *, with_directories: bool) -> FinalRecord:
        """Everything after the command; what was done before is not done again."""
        path = context.folders.root / "final.json"
        record = _read(path)
        if record is None:
            spools = {stream: OutputSpool(context.folders.root, stream) for stream in LogStream}
            store = partial(self._store, context, spools, with_directories=with_directories)
            limit = PhaseLimit(
                phase="upload",
                limit=context.spec.upload_timeout or self._settings.upload_timeout,
                setting="upload_timeout",
            )
            try:
                phases = self._phase_record(context)
                failure = await within(limit, context, store, clock=self._clock, record=phases)
                record = FinalRecord(failure=failure.reason if failure else "", note=context.note)
            except PhaseOver as problem:
                record = FinalRecord(failure=str(problem))
            _write(path, record)
        return record

    def _phase_record(self, context: StepContext) -> PhaseRecord:
        return PhaseRecord(context.folders.root, boot_id=self._boot_id, now_s=self._clock())

    async def _store(
        self, context: StepContext, spools: Mapping[LogStream, OutputSpool], *, with_directories: bool
    ) -> StepFailure | None:
        failure = await self._secrets.for_results(context)
        return failure or await outputs.store_results(context, spools, with_directories=with_directories)


def _read(path: Path) -> FinalRecord | None:
    try:
        return FinalRecord(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        # Damaged means: written by an agent that was interrupted; the upload is done again.
        return None


def _write(path: Path, record: FinalRecord) -> None:
    # On a full disk it is not: an agent that starts in between uploads once more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(record)).encode())
