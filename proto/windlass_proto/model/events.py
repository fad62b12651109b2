"""What an agent tells about an attempt (protocol.md, section 2).

Legal order in one attempt: preparing < started < exited < finalized; a later event implies the earlier.
"""

from dataclasses import dataclass

from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """The node fetches what the command needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareFailed:
    """No command was started."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The command runs."""

    image_digest: str = ""
    """Of the container image that it runs in; "" = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The keeper's exit record. Exactly one of `code` and `signal` is set."""

    code: int | None
    signal: int | None
    kind: FailureKind | None = None
    """Decided on the node, where the causes can be told apart; None = code 0."""
    reason: str = ""
    ran_for_us: int = 0
    """On the node's boot clock."""
    user_cpu_us: int = 0
    system_cpu_us: int = 0
    peak_memory_bytes: int = 0
    """0 = not known."""
    stdout_end: int = 0
    """Bytes the command produced, whether or not they were kept."""
    stderr_end: int = 0
    finalizing: bool = False
    """Outputs are still to be uploaded; Finalized or FinalizeFailed follows."""
    stopped: bool = False
    """It ended because of a stop request."""
    leftover_processes: int = 0
    """Processes of the command that had to be killed after it had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalized:
    """The outputs are where they should be."""

    note: str = ""
    """What is worth knowing and no failure, such as a log file that was not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeFailed:
    """The outputs could not be uploaded; the attempt fails as OUTPUT."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedEarly:
    """A stop request came before a command ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostOnNode:
    """It ended without a result that can be trusted, such as when its keeper was killed."""

    kind: FailureKind
    reason: str
    stdout_end: int = 0
    """Bytes that the node has of what the command wrote; they may still be sent."""
    stderr_end: int = 0


Happening = (
    Preparing | PrepareFailed | Started | Exited | Finalized | FinalizeFailed | StoppedEarly | LostOnNode
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent:
    """One happening of one attempt; `seq` grows from 1 per attempt and makes it idempotent."""

    ref: AttemptRef
    seq: int
    what: Happening
