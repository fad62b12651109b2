"""Takes an attempt through its steps: all that comes before and after its command.

What was done after the command is written down (the final record), so that an agent that starts in between
does not do it twice.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.core.mount_plan import MountRefused, plan_mounts
from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.mounts.base import StorageOpener
from windlass_agent.runner.steps import command, mounts, outputs, package, workdir
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepFailure, StepSettings
from windlass_agent.runner.task_template import TaskTemplate
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRecord:
    """What became of an attempt's results; "" = everything is where it should be."""

    failure: str


class StepRunner:
    def __init__(
        self,
        storages: StorageOpener,
        settings: StepSettings,
        *,
        directory_of: Callable[[AttemptRef], Path],
        may_bind: bool,
    ) -> None:
        self._storages, self._settings = storages, settings
        self._directory_of, self._may_bind = directory_of, may_bind

    def context(self, ref: AttemptRef, template: TaskTemplate) -> StepContext | StepFailure:
        folders = AttemptFolders(root=self._directory_of(ref))
        try:
            planned = plan_mounts(
                template.spec, work=folders.work, mounts=folders.mounts, may_bind=self._may_bind
            )
        except MountRefused as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))
        return StepContext(
            ref=ref,
            job_id=template.job_id,
            spec=template.spec,
            folders=folders,
            storages=self._storages,
            settings=self._settings,
            mounts=planned,
        )

    async def prepare(self, context: StepContext, template: TaskTemplate) -> CommandPlan | StepFailure:
        """Everything up to the command; may be done again after an interruption."""
        for step in (workdir.make_directories, package.fetch_and_unpack, mounts.fetch_inputs):
            failure = await step(context)
            if failure is not None or context.cancelled.is_set():
                return failure or StepFailure(kind=FailureKind.USER_CONFIG, reason="it was stopped")
        try:
            return command.command_plan(context, template, output_dir=context.folders.root)
        except MountRefused as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))

    async def finalize(self, context: StepContext, *, with_directories: bool) -> FinalRecord:
        """Everything after the command; what was done before is not done again."""
        path = context.folders.root / "final.json"
        record = _read(path)
        if record is None:
            spools = {stream: OutputSpool(context.folders.root, stream) for stream in LogStream}
            failure = await outputs.store_results(context, spools, with_directories=with_directories)
            record = FinalRecord(failure=failure.reason if failure else "")
            _write(path, record)
        return record


def _read(path: Path) -> FinalRecord | None:
    try:
        return FinalRecord(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        # Damaged means: written by an agent that was interrupted; the upload is done again.
        return None


def _write(path: Path, record: FinalRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name("final.new")
    beside.write_text(json.dumps({"failure": record.failure}))
    beside.replace(path)
