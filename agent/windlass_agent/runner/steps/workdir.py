"""Makes the attempt's directories, empty."""

import shutil
from functools import partial
from pathlib import Path

from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepFailure
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind


async def make_directories(context: StepContext) -> StepFailure | None:
    """Whatever an interrupted earlier preparation left there is removed first."""
    outputs = [transfer.directory for transfer in context.mounts.outputs]
    inputs = [transfer.directory for transfer in context.mounts.inputs]
    try:
        await in_thread(partial(_make, context.folders, [*inputs, *outputs]))
    except OSError as problem:
        return StepFailure(
            kind=FailureKind.INFRA_PREPARE, reason=f"the work directory could not be made: {problem}"
        )
    return None


def _make(folders: AttemptFolders, mapped: list[Path]) -> None:
    for folder in (folders.work, folders.temporary, folders.mounts):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, mode=0o755)
    for directory in mapped:
        directory.mkdir(parents=True, exist_ok=True)
