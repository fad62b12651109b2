"""What became of an attempt's container, beyond its exit code: read from beside what `supervise` was told."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from windlass_agent.containers.supervise import ENGINE_FAILED
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.failures import FailureKind

RUN_FILE = "container.json"
"""In the attempt's directory; there from before its container is made."""
OUTCOME_FILE = "container.outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOutcome:
    """Texts are "" unless it is so."""

    removed: bool = False
    """Nothing of it runs any more."""
    left: bool = False
    """Its engine still knows it: it did not answer when it was to remove it."""
    oom: bool = False
    failed: str = ""
    """It could not be made: why."""
    not_started: str = ""
    """It was made, and its command could not be started: why."""
    lost: str = ""
    """Its engine lost it: how."""
    killed: bool = False
    """It was ended from outside, with whoever waited for it."""


def is_in_container(directory: Path) -> bool:
    return (directory / RUN_FILE).exists()


def image_digest_of(directory: Path) -> str:
    """Of the image that the attempt runs; "" = it runs in none."""
    try:
        digest: str = json.loads((directory / RUN_FILE).read_text())["digest"]
    except (OSError, ValueError, LookupError):
        return ""
    return digest


def read_outcome(directory: Path) -> ContainerOutcome:
    """Of an unreadable one nothing is known, and least that it is removed."""
    try:
        return ContainerOutcome(**json.loads((directory / OUTCOME_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return ContainerOutcome()


def judge(record: ExitRecord, directory: Path) -> ExitRecord:
    """The keeper's record of the process that stood for the container, as one of the container."""
    try:
        memory_bytes = int(json.loads((directory / RUN_FILE).read_text())["memory_bytes"])
    except (OSError, ValueError, LookupError, TypeError):
        memory_bytes = 0
    return judged(record, read_outcome(directory), memory_bytes=memory_bytes)


def judged(record: ExitRecord, outcome: ContainerOutcome, *, memory_bytes: int) -> ExitRecord:
    """What that process used is not what the container did."""
    record = replace(record, user_cpu_us=0, system_cpu_us=0, peak_memory_bytes=0)
    if record.stopped or record.disconnected or record.kind is FailureKind.TIMEOUT:
        return record
    if outcome.lost:
        return replace(record, kind=FailureKind.INFRA_KEEPER_LOST, reason=outcome.lost)
    if outcome.failed:
        why = f"the container could not be made: {outcome.failed}"
        return replace(record, code=ENGINE_FAILED, signal=None, kind=FailureKind.INFRA_PREPARE, reason=why)
    if outcome.not_started:
        why = f"the command could not be started in the container: {outcome.not_started}"
        return replace(record, kind=FailureKind.USER_CONFIG, reason=why)
    if outcome.oom and record.kind is not None:
        limit = f"its {memory_bytes} bytes of memory" if memory_bytes else "the memory that the machine has"
        return replace(record, kind=FailureKind.OOM, reason=f"needed more than {limit}; {record.reason}")
    if outcome.killed and record.kind is FailureKind.USER_SIGNAL:
        why = f"the process that waited for its container was ended; {record.reason}"
        return replace(record, kind=FailureKind.INFRA_KEEPER_LOST, reason=why)
    return record
