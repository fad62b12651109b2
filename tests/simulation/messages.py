"""What travels in the simulated network: the agent protocol as values; the wire form has its own tests."""

from dataclasses import dataclass
from datetime import timedelta

from windlass_proto.model.assignments import AssignmentBatch, InventoryItem, SessionRef, Timing, VerdictItem
from windlass_proto.model.events import AttemptEvent
from windlass_proto.model.ids import AttemptRef, JobId, NodeId, NodeKey
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import LogStream
from windlass_proto.model.status import NodeFacts
from windlass_proto.model.verdicts import EventVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinCall:
    token_id: str
    facts: NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    node_key: NodeKey
    node_id: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    node_key: NodeKey
    node_id: NodeId
    """Stands for its credential."""
    state_id: str
    boot_id: str
    last_nonce: str
    facts: NodeFacts
    inventory: tuple[InventoryItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    epoch: int
    nonce: str
    timing: Timing
    verdicts: tuple[VerdictItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCall:
    """What every call after OpenSession says first."""

    node_key: NodeKey
    session: SessionRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PollCall(NodeCall):
    poll_seq: int
    want: int
    wait: timedelta
    is_empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    batches: tuple[AssignmentBatch, ...]
    stops: tuple[AttemptRef, ...]
    timing: Timing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCall(NodeCall):
    events: tuple[AttemptEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    verdicts: tuple[EventVerdict, ...]
    forget: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatCall(NodeCall):
    ended: tuple[AttemptRef, ...]
    missing: tuple[AttemptRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beaten:
    timing: Timing
    stops: tuple[AttemptRef, ...]
    forgets: tuple[AttemptRef, ...]
    audit: tuple[AttemptRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendCall:
    node_key: NodeKey
    ref: AttemptRef
    stream: LogStream
    offset: int
    data: bytes
    crc32: int
    gap_bytes: int
    gap_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    durable_end: int
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCall(NodeCall):
    refs: tuple[AttemptRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveCall(NodeCall):
    """The node stops for good."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitCall:
    spec: JobSpec
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerCall:
    """Stop, restart, delete or re-prioritise a job."""

    job_id: JobId
    verb: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperateCall:
    """Drain or resume a node."""

    node_id: NodeId
    verb: str
    within_s: float | None = None
