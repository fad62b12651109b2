"""Gives what was prepared to the user that the command runs as."""

from functools import partial

from windlass_agent.isolation.handing_over import hand_over_tree
from windlass_agent.runner.steps.base import StepContext, StepFailure
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind


async def hand_over(context: StepContext) -> StepFailure | None:
    """The last step, when all is there and nothing of the command runs yet."""
    if not context.owner:
        return None
    try:
        await in_thread(partial(_hand_over, context))
    except OSError as problem:
        return StepFailure(
            kind=FailureKind.INFRA_PREPARE, reason=f"the work directory could not be handed over: {problem}"
        )
    return None


def _hand_over(context: StepContext) -> None:
    folders = context.folders
    device = folders.root.stat().st_dev
    for tree in (folders.work, folders.temporary, *(bind.directory for bind in context.mounts.binds)):
        hand_over_tree(tree, context.owner, device=device)
