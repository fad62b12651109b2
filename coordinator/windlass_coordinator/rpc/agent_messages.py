"""What agents say, as values that were checked; and what they are told, as messages."""

import re
from collections.abc import Sequence

from windlass_coordinator.core.publishing import Publication
from windlass_coordinator.core.records import Claimed
from windlass_coordinator.engine.parking import PollAnswer
from windlass_coordinator.rpc.interceptors import current_node
from windlass_proto import convert
from windlass_proto.checks.words import Findings, check_between, check_text
from windlass_proto.errors import Denied
from windlass_proto.model.assignments import AssignmentBatch, SessionRef
from windlass_proto.model.events import AttemptEvent, Exited, PrepareFailed, StoppedEarly
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.status import NodeFacts
from windlass_proto.model.verdicts import EventVerdict
from windlass_proto.v1 import agent_pb2 as wire

LONGEST_FACT = 1024
"""Bytes of a text that a node says of itself."""
_LARGEST_MACHINE = 1 << 60
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEVER_WANTED = (EventVerdict.SUPERSEDED, EventVerdict.UNKNOWN)


def calling_node_key(node_id: str) -> NodeKey:
    """The calling node; it may speak for itself only (invariant I18)."""
    identity = current_node()
    if identity.node_id != node_id:
        raise Denied("a node may act for itself only")
    return identity.node_key


def checked_facts(message: wire.NodeFacts) -> NodeFacts:
    """What a machine says of itself; raises InvalidRequest for what cannot be kept."""
    findings = Findings()
    for name in ("name", "agent_version", "os", "containment"):
        check_text(findings, f"facts.{name}", getattr(message, name), longest_bytes=LONGEST_FACT)
    for name in ("cpu", "memory_bytes", "slots", "gpus"):
        check_between(findings, f"facts.{name}", getattr(message, name), low=0, high=_LARGEST_MACHINE)
    findings.raise_if_any()
    return convert.node_facts_from_wire(message)


def checked_publication(request: wire.CommitOutputsRequest) -> Publication:
    """Raises InvalidRequest for what cannot be kept."""
    findings = Findings()
    if not _SHA256.fullmatch(request.manifest_digest):
        findings.add("manifest_digest", "must be a SHA-256 in hex: 64 digits")
    for name in ("files", "bytes"):
        check_between(findings, name, getattr(request, name), low=0, high=_LARGEST_MACHINE)
    findings.raise_if_any()
    return Publication(
        ref=convert.attempt_ref_from_wire(request.ref),
        manifest_digest=request.manifest_digest,
        files=request.files,
        size_bytes=request.bytes,
    )


def trouble_of(pressure: wire.Pressure) -> str:
    """What keeps a node from its work, in its own words and ours."""
    stuck = pressure.stuck_slots
    slots = f"{stuck} slot(s) hold processes that cannot be ended" if stuck else ""
    return "; ".join(filter(None, (pressure.takes_no_work[:LONGEST_FACT], slots)))


def checked_session(message: wire.SessionRef) -> tuple[SessionRef, NodeKey]:
    """Raises Denied for another node's."""
    session = convert.session_ref_from_wire(message)
    return session, calling_node_key(session.node_id)


def poll_reply(answer: PollAnswer) -> wire.PollReply:
    """All empty when nothing came."""
    return wire.PollReply(
        batches=[convert.assignment_batch_to_wire(batch_of(claimed)) for claimed in answer.claimed],
        stops=[convert.attempt_ref_to_wire(ref) for ref in answer.stops],
        go_away=answer.go_away,
    )


def batch_of(claimed: Claimed) -> AssignmentBatch:
    """As it travels: the task once, for all of its instances."""
    task = claimed.task
    return AssignmentBatch(
        task_key=task.task_key,
        job_id=task.job_id,
        task_name=task.name,
        instance_count=task.instance_count,
        spec=task.spec,
        cluster=task.cluster,
        index=claimed.index,
        attempt=claimed.attempt,
        fence=claimed.fence,
    )


def forgettable(events: Sequence[AttemptEvent], verdicts: Sequence[EventVerdict]) -> list[int]:
    """Positions of events after which nothing more is wanted of their attempts; for the others the agent
    asks with a heartbeat, when their logs have arrived."""
    return [
        position
        for position, (event, verdict) in enumerate(zip(events, verdicts, strict=True))
        if verdict in _NEVER_WANTED or _says_all(event)
    ]


def _says_all(event: AttemptEvent) -> bool:
    match event.what:
        case Exited(finalizing=False, stdout_end=0, stderr_end=0) | PrepareFailed() | StoppedEarly():
            return True
    return False
