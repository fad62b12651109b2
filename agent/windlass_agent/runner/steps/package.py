"""Fetches the task's package and unpacks it into the work directory.

Unpacking happens in a process of its own with limits: an archive is hostile input, and the agent must
survive whatever it does to the unpacker.
"""

import contextlib
import subprocess
import sys
from functools import partial
from pathlib import Path

from windlass_agent.mounts.base import BadMapping
from windlass_agent.runner import unpack
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.storage import ObjectLocation, parse_object_url

_REFUSED = 2
_LOOK_EVERY_S = 0.2


async def fetch_and_unpack(context: StepContext) -> StepFailure | None:
    """Nothing to do without a package."""
    if not context.spec.package:
        return None
    try:
        location = parse_object_url(context.spec.package)
    except ValueError as problem:
        return StepFailure(kind=FailureKind.USER_CONFIG, reason=f"package: {problem}")
    fetch = partial(_fetch, context, location)
    failure = await in_thread(partial(transfer, fetch, unavailable=FailureKind.INFRA_PREPARE))
    if failure is None and not context.cancelled.is_set():
        failure = await in_thread(partial(_unpack, context))
    return failure


def _fetch(context: StepContext, location: ObjectLocation) -> None:
    if location.is_directory:
        raise BadMapping(f"package {location}: is a directory; name the archive itself")
    storage = context.storages.for_scheme(location.scheme)
    storage.fetch_file(location, context.folders.package, cancelled=context.cancelled)


def _unpack(context: StepContext) -> StepFailure | None:
    archive, settings = context.folders.package, context.settings
    command = [
        sys.executable,
        *("-I", "-S", str(Path(unpack.__file__))),
        *(str(archive), str(context.folders.work)),
        *(str(settings.package_limit_bytes), str(settings.package_limit_entries)),
    ]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={}
        ) as child:
            said = _wait(child, context)
        return _judge(child.returncode, said, context.spec.package)
    except OSError as problem:
        return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"could not unpack: {problem}")
    finally:
        archive.unlink(missing_ok=True)


def _wait(child: "subprocess.Popen[bytes]", context: StepContext) -> str:
    """Until it ends, or the attempt is stopped, or its package's time is over."""
    while not context.cancelled.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=_LOOK_EVERY_S)[0].decode(errors="replace").strip()
    child.kill()
    return child.communicate()[0].decode(errors="replace").strip()


def _judge(code: int, said: str, package: str) -> StepFailure | None:
    lines = said.splitlines()
    last = lines[-1] if lines else "it was ended at one of its limits"
    match code:
        case 0:
            return None
        case code if code == _REFUSED or code < 0:
            # Ended by a signal means by one of its limits: another try would end the same way.
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=f"package {package}: {last}")
        case _:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"package {package}: {last}")
