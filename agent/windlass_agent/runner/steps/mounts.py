"""Copies the task's inputs down before the command starts."""

import asyncio
from functools import partial

from windlass_agent.core.mount_plan import Transfer
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_proto.model.failures import FailureKind


async def fetch_inputs(context: StepContext) -> StepFailure | None:
    """One after the other: the objects of each come several at once."""
    for mapping in context.mounts.inputs:
        failure = await asyncio.to_thread(
            transfer, partial(_fetch, context, mapping), unavailable=FailureKind.INFRA_PREPARE
        )
        if failure is not None or context.cancelled.is_set():
            return failure
    return None


def _fetch(context: StepContext, mapping: Transfer) -> None:
    storage = context.storages.for_scheme(mapping.location.scheme)
    storage.fetch_directory(mapping.location, mapping.directory, cancelled=context.cancelled)
