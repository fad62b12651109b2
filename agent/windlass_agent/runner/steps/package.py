"""Fetches the task's package, by way of the node's cache, and unpacks it into the work directory.

Unpacking happens in a process of its own with limits: an archive is hostile input, and the agent must
survive whatever it does to the unpacker (`windlass_proto.unpack`).
"""

from functools import partial
from typing import IO

from windlass_agent.runner.package_cache import PackageCache
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.storage import ObjectLocation, parse_object_url
from windlass_proto.unpack.launch import Verdict, unpack_archive
from windlass_proto.unpack.limits import Limits


async def fetch_and_unpack(context: StepContext, *, cache: PackageCache) -> StepFailure | None:
    """Nothing to do without a package."""
    if not context.spec.package:
        return None
    try:
        location = parse_object_url(context.spec.package)
        if location.is_directory:
            raise ValueError(f"{location}: is a directory; name the archive itself")
    except ValueError as problem:
        return StepFailure(kind=FailureKind.USER_CONFIG, reason=f"package: {problem}")
    return await in_thread(partial(_fetch_and_unpack, context, location, cache))


def _fetch_and_unpack(
    context: StepContext, location: ObjectLocation, cache: PackageCache
) -> StepFailure | None:
    failures: list[StepFailure | None] = []

    def both() -> None:
        storage = context.storages.for_scheme(location.scheme)
        with cache.archive(
            storage, location, private=context.folders.package, cancelled=context.cancelled
        ) as archive:
            failures.append(_unpack(context, archive))

    return transfer(both, unavailable=FailureKind.INFRA_PREPARE) or failures[0]


def _unpack(context: StepContext, archive: IO[bytes]) -> StepFailure | None:
    settings = context.settings
    limits = Limits(
        unpacked_bytes=settings.package_limit_bytes,
        entries=settings.package_limit_entries,
        ratio=settings.package_limit_ratio,
    )
    try:
        outcome = unpack_archive(archive, context.folders.work, limits, is_cancelled=context.cancelled.is_set)
    except OSError as problem:
        return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"could not unpack: {problem}")
    reason = f"package {context.spec.package}: {outcome.said}"
    match outcome.verdict:
        case Verdict.UNPACKED:
            return None
        case Verdict.REFUSED:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=reason)
        case Verdict.FAILED:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=reason)
