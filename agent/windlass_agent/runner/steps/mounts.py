"""Shows the command its inputs, and judges afterwards whether what it saw can be trusted."""

from dataclasses import replace
from functools import partial

from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.mounts.base import MountRequest
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind


async def clear_left(context: StepContext) -> StepFailure | None:
    """Before the directories are made anew: an agent that was interrupted may have left mounts in them."""
    await release(context)
    return None


async def show_inputs(context: StepContext) -> StepFailure | None:
    """All or nothing."""
    if not context.mounts.inputs:
        return None
    request = MountRequest(
        root=context.folders.root,
        inputs=context.mounts.inputs,
        codec=context.spec.input_locale,
        locks=context.spec.input_locks,
    )
    mount = partial(context.mounter.mount, request, context.storages, cancelled=context.cancelled)
    return await in_thread(partial(transfer, mount, unavailable=FailureKind.INFRA_PREPARE))


async def judge(context: StepContext, record: ExitRecord) -> ExitRecord:
    """A command whose mount died has no result: what it made of it is nobody's fault but the node's."""
    if not context.mounts.inputs or record.stopped:
        return record
    trouble = await in_thread(partial(context.mounter.verdict, context.folders.root))
    if not trouble:
        return record
    reason = "; ".join(part for part in (trouble, record.reason) if part)
    return replace(record, kind=FailureKind.INFRA_PREPARE, reason=reason)


async def release(context: StepContext) -> None:
    """Whatever became of the command."""
    if context.mounts.inputs:
        await in_thread(partial(context.mounter.release, context.folders.root))
