import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from windlass_proto.v1 import jobs_pb2 as _jobs_pb2
from windlass_proto.v1 import secrets_pb2 as _secrets_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttemptPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_PHASE_UNSPECIFIED: _ClassVar[AttemptPhase]
    ATTEMPT_PHASE_ASSIGNED: _ClassVar[AttemptPhase]
    ATTEMPT_PHASE_PREPARING: _ClassVar[AttemptPhase]
    ATTEMPT_PHASE_RUNNING: _ClassVar[AttemptPhase]
    ATTEMPT_PHASE_ENDED: _ClassVar[AttemptPhase]

class InventoryVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INVENTORY_VERDICT_UNSPECIFIED: _ClassVar[InventoryVerdict]
    INVENTORY_VERDICT_KEEP: _ClassVar[InventoryVerdict]
    INVENTORY_VERDICT_REPORT: _ClassVar[InventoryVerdict]
    INVENTORY_VERDICT_KILL: _ClassVar[InventoryVerdict]
    INVENTORY_VERDICT_FORGET: _ClassVar[InventoryVerdict]

class EventVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_VERDICT_UNSPECIFIED: _ClassVar[EventVerdict]
    EVENT_VERDICT_ACCEPTED: _ClassVar[EventVerdict]
    EVENT_VERDICT_DUPLICATE: _ClassVar[EventVerdict]
    EVENT_VERDICT_SUPERSEDED: _ClassVar[EventVerdict]
    EVENT_VERDICT_CONFLICT: _ClassVar[EventVerdict]
    EVENT_VERDICT_UNKNOWN: _ClassVar[EventVerdict]
ATTEMPT_PHASE_UNSPECIFIED: AttemptPhase
ATTEMPT_PHASE_ASSIGNED: AttemptPhase
ATTEMPT_PHASE_PREPARING: AttemptPhase
ATTEMPT_PHASE_RUNNING: AttemptPhase
ATTEMPT_PHASE_ENDED: AttemptPhase
INVENTORY_VERDICT_UNSPECIFIED: InventoryVerdict
INVENTORY_VERDICT_KEEP: InventoryVerdict
INVENTORY_VERDICT_REPORT: InventoryVerdict
INVENTORY_VERDICT_KILL: InventoryVerdict
INVENTORY_VERDICT_FORGET: InventoryVerdict
EVENT_VERDICT_UNSPECIFIED: EventVerdict
EVENT_VERDICT_ACCEPTED: EventVerdict
EVENT_VERDICT_DUPLICATE: EventVerdict
EVENT_VERDICT_SUPERSEDED: EventVerdict
EVENT_VERDICT_CONFLICT: EventVerdict
EVENT_VERDICT_UNKNOWN: EventVerdict

class JoinRequest(_message.Message):
    __slots__ = ("token", "facts")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    token: str
    facts: NodeFacts
    def __init__(self, token: _Optional[str] = ..., facts: _Optional[_Union[NodeFacts, _Mapping]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("node_id", "credential", "cluster")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    credential: str
    cluster: str
    def __init__(self, node_id: _Optional[str] = ..., credential: _Optional[str] = ..., cluster: _Optional[str] = ...) -> None: ...

class NodeFacts(_message.Message):
    __slots__ = ("name", "slots", "cpu", "memory_bytes", "agent_version", "os", "containment", "gpus")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    CONTAINMENT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    slots: int
    cpu: float
    memory_bytes: int
    agent_version: str
    os: str
    containment: str
    gpus: int
    def __init__(self, name: _Optional[str] = ..., slots: _Optional[int] = ..., cpu: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., agent_version: _Optional[str] = ..., os: _Optional[str] = ..., containment: _Optional[str] = ..., gpus: _Optional[int] = ...) -> None: ...

class SessionRef(_message.Message):
    __slots__ = ("node_id", "node_epoch", "nonce")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    node_epoch: int
    nonce: str
    def __init__(self, node_id: _Optional[str] = ..., node_epoch: _Optional[int] = ..., nonce: _Optional[str] = ...) -> None: ...

class AttemptRef(_message.Message):
    __slots__ = ("task_key", "index", "attempt", "fence")
    TASK_KEY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    task_key: int
    index: int
    attempt: int
    fence: int
    def __init__(self, task_key: _Optional[int] = ..., index: _Optional[int] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class InventoryItem(_message.Message):
    __slots__ = ("ref", "phase", "seq", "has_exit")
    REF_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HAS_EXIT_FIELD_NUMBER: _ClassVar[int]
    ref: AttemptRef
    phase: AttemptPhase
    seq: int
    has_exit: bool
    def __init__(self, ref: _Optional[_Union[AttemptRef, _Mapping]] = ..., phase: _Optional[_Union[AttemptPhase, str]] = ..., seq: _Optional[int] = ..., has_exit: _Optional[bool] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("node_id", "state_id", "boot_id", "last_nonce", "protocol_version", "facts", "inventory")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_NONCE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    state_id: str
    boot_id: str
    last_nonce: str
    protocol_version: int
    facts: NodeFacts
    inventory: _containers.RepeatedCompositeFieldContainer[InventoryItem]
    def __init__(self, node_id: _Optional[str] = ..., state_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., last_nonce: _Optional[str] = ..., protocol_version: _Optional[int] = ..., facts: _Optional[_Union[NodeFacts, _Mapping]] = ..., inventory: _Optional[_Iterable[_Union[InventoryItem, _Mapping]]] = ...) -> None: ...

class VerdictItem(_message.Message):
    __slots__ = ("ref", "verdict", "from_seq")
    REF_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    ref: AttemptRef
    verdict: InventoryVerdict
    from_seq: int
    def __init__(self, ref: _Optional[_Union[AttemptRef, _Mapping]] = ..., verdict: _Optional[_Union[InventoryVerdict, str]] = ..., from_seq: _Optional[int] = ...) -> None: ...

class OpenSessionReply(_message.Message):
    __slots__ = ("node_epoch", "nonce", "timing", "verdicts")
    NODE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    node_epoch: int
    nonce: str
    timing: Timing
    verdicts: _containers.RepeatedCompositeFieldContainer[VerdictItem]
    def __init__(self, node_epoch: _Optional[int] = ..., nonce: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., verdicts: _Optional[_Iterable[_Union[VerdictItem, _Mapping]]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("heartbeat_interval", "lease", "poll_wait", "kill_grace", "reconnect_within", "quiet")
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    POLL_WAIT_FIELD_NUMBER: _ClassVar[int]
    KILL_GRACE_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    QUIET_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval: _duration_pb2.Duration
    lease: _duration_pb2.Duration
    poll_wait: _duration_pb2.Duration
    kill_grace: _duration_pb2.Duration
    reconnect_within: _duration_pb2.Duration
    quiet: QuietTiming
    def __init__(self, heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., poll_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kill_grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reconnect_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., quiet: _Optional[_Union[QuietTiming, _Mapping]] = ...) -> None: ...

class QuietTiming(_message.Message):
    __slots__ = ("poll_wait", "interval")
    POLL_WAIT_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    poll_wait: _duration_pb2.Duration
    interval: _duration_pb2.Duration
    def __init__(self, poll_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class PollRequest(_message.Message):
    __slots__ = ("session", "poll_seq", "want", "wait", "is_empty")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    POLL_SEQ_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    IS_EMPTY_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    poll_seq: int
    want: int
    wait: _duration_pb2.Duration
    is_empty: bool
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., poll_seq: _Optional[int] = ..., want: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., is_empty: _Optional[bool] = ...) -> None: ...

class PollReply(_message.Message):
    __slots__ = ("batches", "stops", "go_away", "timing")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    STOPS_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[AssignmentBatch]
    stops: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    go_away: bool
    timing: Timing
    def __init__(self, batches: _Optional[_Iterable[_Union[AssignmentBatch, _Mapping]]] = ..., stops: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., go_away: _Optional[bool] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class AssignmentBatch(_message.Message):
    __slots__ = ("task_key", "job_id", "task_name", "instance_count", "spec", "index", "attempt", "fence", "cluster")
    TASK_KEY_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    task_key: int
    job_id: str
    task_name: str
    instance_count: int
    spec: bytes
    index: _containers.RepeatedScalarFieldContainer[int]
    attempt: _containers.RepeatedScalarFieldContainer[int]
    fence: _containers.RepeatedScalarFieldContainer[int]
    cluster: str
    def __init__(self, task_key: _Optional[int] = ..., job_id: _Optional[str] = ..., task_name: _Optional[str] = ..., instance_count: _Optional[int] = ..., spec: _Optional[bytes] = ..., index: _Optional[_Iterable[int]] = ..., attempt: _Optional[_Iterable[int]] = ..., fence: _Optional[_Iterable[int]] = ..., cluster: _Optional[str] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("session", "tasks")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    tasks: _containers.RepeatedCompositeFieldContainer[TaskEvents]
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[TaskEvents, _Mapping]]] = ...) -> None: ...

class TaskEvents(_message.Message):
    __slots__ = ("task_key", "events")
    TASK_KEY_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    task_key: int
    events: _containers.RepeatedCompositeFieldContainer[AttemptEvent]
    def __init__(self, task_key: _Optional[int] = ..., events: _Optional[_Iterable[_Union[AttemptEvent, _Mapping]]] = ...) -> None: ...

class AttemptEvent(_message.Message):
    __slots__ = ("index", "attempt", "fence", "seq", "preparing", "prepare_failed", "started", "exited", "finalized", "finalize_failed", "stopped", "lost")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PREPARING_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FAILED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    FINALIZED_FIELD_NUMBER: _ClassVar[int]
    FINALIZE_FAILED_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    index: int
    attempt: int
    fence: int
    seq: int
    preparing: Preparing
    prepare_failed: PrepareFailed
    started: Started
    exited: Exited
    finalized: Finalized
    finalize_failed: FinalizeFailed
    stopped: StoppedEarly
    lost: Lost
    def __init__(self, index: _Optional[int] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., seq: _Optional[int] = ..., preparing: _Optional[_Union[Preparing, _Mapping]] = ..., prepare_failed: _Optional[_Union[PrepareFailed, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., exited: _Optional[_Union[Exited, _Mapping]] = ..., finalized: _Optional[_Union[Finalized, _Mapping]] = ..., finalize_failed: _Optional[_Union[FinalizeFailed, _Mapping]] = ..., stopped: _Optional[_Union[StoppedEarly, _Mapping]] = ..., lost: _Optional[_Union[Lost, _Mapping]] = ...) -> None: ...

class Preparing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PrepareFailed(_message.Message):
    __slots__ = ("kind", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reason: str
    def __init__(self, kind: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("image_digest",)
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    image_digest: str
    def __init__(self, image_digest: _Optional[str] = ...) -> None: ...

class Exited(_message.Message):
    __slots__ = ("code", "signal", "kind", "reason", "ran_for_us", "user_cpu_us", "system_cpu_us", "peak_memory_bytes", "stdout_end", "stderr_end", "finalizing", "stopped", "leftover_processes")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RAN_FOR_US_FIELD_NUMBER: _ClassVar[int]
    USER_CPU_US_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_CPU_US_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDOUT_END_FIELD_NUMBER: _ClassVar[int]
    STDERR_END_FIELD_NUMBER: _ClassVar[int]
    FINALIZING_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    LEFTOVER_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    kind: str
    reason: str
    ran_for_us: int
    user_cpu_us: int
    system_cpu_us: int
    peak_memory_bytes: int
    stdout_end: int
    stderr_end: int
    finalizing: bool
    stopped: bool
    leftover_processes: int
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., ran_for_us: _Optional[int] = ..., user_cpu_us: _Optional[int] = ..., system_cpu_us: _Optional[int] = ..., peak_memory_bytes: _Optional[int] = ..., stdout_end: _Optional[int] = ..., stderr_end: _Optional[int] = ..., finalizing: _Optional[bool] = ..., stopped: _Optional[bool] = ..., leftover_processes: _Optional[int] = ...) -> None: ...

class Finalized(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: str
    def __init__(self, note: _Optional[str] = ...) -> None: ...

class FinalizeFailed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class StoppedEarly(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Lost(_message.Message):
    __slots__ = ("kind", "reason", "stdout_end", "stderr_end")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STDOUT_END_FIELD_NUMBER: _ClassVar[int]
    STDERR_END_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reason: str
    stdout_end: int
    stderr_end: int
    def __init__(self, kind: _Optional[str] = ..., reason: _Optional[str] = ..., stdout_end: _Optional[int] = ..., stderr_end: _Optional[int] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("verdicts", "forget")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedScalarFieldContainer[EventVerdict]
    forget: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[EventVerdict, str]]] = ..., forget: _Optional[_Iterable[int]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("session", "hb_seq", "ended", "pressure", "missing")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    HB_SEQ_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    hb_seq: int
    ended: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    pressure: Pressure
    missing: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., hb_seq: _Optional[int] = ..., ended: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., pressure: _Optional[_Union[Pressure, _Mapping]] = ..., missing: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ...) -> None: ...

class Pressure(_message.Message):
    __slots__ = ("load1", "memory_available_bytes", "disk_free_bytes", "running", "stuck_slots", "takes_no_work")
    LOAD1_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    STUCK_SLOTS_FIELD_NUMBER: _ClassVar[int]
    TAKES_NO_WORK_FIELD_NUMBER: _ClassVar[int]
    load1: float
    memory_available_bytes: int
    disk_free_bytes: int
    running: int
    stuck_slots: int
    takes_no_work: str
    def __init__(self, load1: _Optional[float] = ..., memory_available_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., running: _Optional[int] = ..., stuck_slots: _Optional[int] = ..., takes_no_work: _Optional[str] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("timing", "stops", "forgets", "audit")
    TIMING_FIELD_NUMBER: _ClassVar[int]
    STOPS_FIELD_NUMBER: _ClassVar[int]
    FORGETS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    timing: Timing
    stops: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    forgets: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    audit: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    def __init__(self, timing: _Optional[_Union[Timing, _Mapping]] = ..., stops: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., forgets: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., audit: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ...) -> None: ...

class AppendLogRequest(_message.Message):
    __slots__ = ("session", "ref", "stream", "offset", "data", "crc32", "gap_bytes", "gap_reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    GAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    GAP_REASON_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    ref: AttemptRef
    stream: _jobs_pb2.LogStream
    offset: int
    data: bytes
    crc32: int
    gap_bytes: int
    gap_reason: str
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., ref: _Optional[_Union[AttemptRef, _Mapping]] = ..., stream: _Optional[_Union[_jobs_pb2.LogStream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., gap_bytes: _Optional[int] = ..., gap_reason: _Optional[str] = ...) -> None: ...

class AppendLogReply(_message.Message):
    __slots__ = ("ref", "stream", "durable_end", "revoked", "quota")
    REF_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DURABLE_END_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    ref: AttemptRef
    stream: _jobs_pb2.LogStream
    durable_end: int
    revoked: bool
    quota: bool
    def __init__(self, ref: _Optional[_Union[AttemptRef, _Mapping]] = ..., stream: _Optional[_Union[_jobs_pb2.LogStream, str]] = ..., durable_end: _Optional[int] = ..., revoked: _Optional[bool] = ..., quota: _Optional[bool] = ...) -> None: ...

class FetchSecretsRequest(_message.Message):
    __slots__ = ("session", "ref")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    ref: AttemptRef
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., ref: _Optional[_Union[AttemptRef, _Mapping]] = ...) -> None: ...

class FetchSecretsReply(_message.Message):
    __slots__ = ("secrets",)
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    secrets: _containers.RepeatedCompositeFieldContainer[OpenedSecret]
    def __init__(self, secrets: _Optional[_Iterable[_Union[OpenedSecret, _Mapping]]] = ...) -> None: ...

class OpenedSecret(_message.Message):
    __slots__ = ("name", "kind", "document")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: _secrets_pb2.SecretKind
    document: bytes
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[_secrets_pb2.SecretKind, str]] = ..., document: _Optional[bytes] = ...) -> None: ...

class CommitOutputsRequest(_message.Message):
    __slots__ = ("session", "ref", "manifest_digest", "files", "bytes", "of_failed_command")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    OF_FAILED_COMMAND_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    ref: AttemptRef
    manifest_digest: str
    files: int
    bytes: int
    of_failed_command: bool
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., ref: _Optional[_Union[AttemptRef, _Mapping]] = ..., manifest_digest: _Optional[str] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ..., of_failed_command: _Optional[bool] = ...) -> None: ...

class CommitOutputsReply(_message.Message):
    __slots__ = ("granted", "reason", "not_yet", "supersedes")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOT_YET_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDES_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    reason: str
    not_yet: bool
    supersedes: bool
    def __init__(self, granted: _Optional[bool] = ..., reason: _Optional[str] = ..., not_yet: _Optional[bool] = ..., supersedes: _Optional[bool] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("session", "refs")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    refs: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., refs: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, released: _Optional[_Iterable[bool]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    reason: str
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
