"""Copies the task's inputs down before the command starts."""

from functools import partial

from windlass_agent.core.mount_plan import Transfer
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind


async def fetch_inputs(context: StepContext) -> StepFailure | None:
    """One after the other: the objects of each come several at once."""
    for mapping in context.mounts.inputs:
        fetch = partial(_fetch, context, mapping)
        failure = await in_thread(partial(transfer, fetch, unavailable=FailureKind.INFRA_PREPARE))
        if failure is not None or context.cancelled.is_set():
            return failure
    return None


def _fetch(context: StepContext, mapping: Transfer) -> None:
    storage = context.storages.for_scheme(mapping.location.scheme, storage=mapping.storage)
    storage.fetch_directory(mapping.location, mapping.directory, cancelled=context.cancelled)
