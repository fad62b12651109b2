"""What agent and coordinator say to each other <-> its messages.

Events are the hot path: a report carries hundreds, so reading them makes no detours.
"""

import re
from collections.abc import Iterable
from itertools import groupby

from windlass_proto.convert import enums
from windlass_proto.convert.times import duration_from_wire, duration_to_wire
from windlass_proto.errors import InvalidRequest
from windlass_proto.model import assignments as model
from windlass_proto.model import events
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, NodeId, TaskKey, TaskName
from windlass_proto.model.verdicts import EventVerdict
from windlass_proto.v1 import agent_pb2 as wire

_PREPARING = events.Preparing()
_STARTED = events.Started()
_FINALIZED = events.Finalized()
_DIGEST = re.compile(r"[a-z0-9]{1,20}:[0-9a-f]{32,128}")
_STOPPED_EARLY = events.StoppedEarly()


def events_to_wire(told: Iterable[events.AttemptEvent]) -> list[wire.TaskEvents]:
    """Keeps the order; neighbours of one task share a group; a reply counts positions over all groups."""
    return [
        wire.TaskEvents(task_key=task_key, events=[_event_to_wire(event) for event in group])
        for task_key, group in groupby(told, key=lambda event: event.ref.task_key)
    ]


def events_from_wire(tasks: Iterable[wire.TaskEvents]) -> list[events.AttemptEvent]:
    told = []
    for task in tasks:
        task_key = TaskKey(task.task_key)
        for message in task.events:
            ref = AttemptRef(
                task_key=task_key, index=message.index, attempt=message.attempt, fence=Fence(message.fence)
            )
            told.append(events.AttemptEvent(ref=ref, seq=message.seq, what=_happening_from_wire(message)))
    return told


def event_verdicts_to_wire(verdicts: Iterable[EventVerdict]) -> list[wire.EventVerdict]:
    return enums.EVENT_VERDICT.all_to_wire(verdicts)


def event_verdicts_from_wire(numbers: Iterable[int]) -> list[EventVerdict]:
    return enums.EVENT_VERDICT.all_from_wire(numbers)


def attempt_ref_to_wire(ref: AttemptRef) -> wire.AttemptRef:
    return wire.AttemptRef(task_key=ref.task_key, index=ref.index, attempt=ref.attempt, fence=ref.fence)


def attempt_ref_from_wire(message: wire.AttemptRef) -> AttemptRef:
    return AttemptRef(
        task_key=TaskKey(message.task_key),
        index=message.index,
        attempt=message.attempt,
        fence=Fence(message.fence),
    )


def session_ref_to_wire(session: model.SessionRef) -> wire.SessionRef:
    return wire.SessionRef(node_id=session.node_id, node_epoch=session.node_epoch, nonce=session.nonce)


def session_ref_from_wire(message: wire.SessionRef) -> model.SessionRef:
    return model.SessionRef(
        node_id=NodeId(message.node_id), node_epoch=message.node_epoch, nonce=message.nonce
    )


def timing_to_wire(timing: model.Timing) -> wire.Timing:
    return wire.Timing(
        heartbeat_interval=duration_to_wire(timing.heartbeat_interval),
        lease=duration_to_wire(timing.lease),
        poll_wait=duration_to_wire(timing.poll_wait),
        kill_grace=duration_to_wire(timing.kill_grace),
        reconnect_within=duration_to_wire(timing.reconnect_within),
        quiet=None if timing.quiet is None else _quiet_to_wire(timing.quiet),
    )


def _quiet_to_wire(quiet: model.QuietTiming) -> wire.QuietTiming:
    return wire.QuietTiming(
        poll_wait=duration_to_wire(quiet.poll_wait), interval=duration_to_wire(quiet.interval)
    )


def timing_from_wire(message: wire.Timing) -> model.Timing:
    return model.Timing(
        heartbeat_interval=duration_from_wire(message.heartbeat_interval),
        lease=duration_from_wire(message.lease),
        poll_wait=duration_from_wire(message.poll_wait),
        kill_grace=duration_from_wire(message.kill_grace),
        reconnect_within=duration_from_wire(message.reconnect_within),
        quiet=_quiet_from_wire(message.quiet) if message.HasField("quiet") else None,
    )


def _quiet_from_wire(message: wire.QuietTiming) -> model.QuietTiming:
    return model.QuietTiming(
        poll_wait=duration_from_wire(message.poll_wait), interval=duration_from_wire(message.interval)
    )


def inventory_item_to_wire(item: model.InventoryItem) -> wire.InventoryItem:
    return wire.InventoryItem(
        ref=attempt_ref_to_wire(item.ref),
        phase=enums.ATTEMPT_PHASE.to_wire(item.phase),
        seq=item.seq,
        has_exit=item.has_exit,
    )


def inventory_item_from_wire(message: wire.InventoryItem) -> model.InventoryItem:
    return model.InventoryItem(
        ref=attempt_ref_from_wire(message.ref),
        phase=enums.ATTEMPT_PHASE.from_wire(message.phase),
        seq=message.seq,
        has_exit=message.has_exit,
    )


def verdict_item_to_wire(item: model.VerdictItem) -> wire.VerdictItem:
    return wire.VerdictItem(
        ref=attempt_ref_to_wire(item.ref),
        verdict=enums.INVENTORY_VERDICT.to_wire(item.verdict),
        from_seq=item.from_seq,
    )


def verdict_item_from_wire(message: wire.VerdictItem) -> model.VerdictItem:
    return model.VerdictItem(
        ref=attempt_ref_from_wire(message.ref),
        verdict=enums.INVENTORY_VERDICT.from_wire(message.verdict),
        from_seq=message.from_seq,
    )


def assignment_batch_to_wire(batch: model.AssignmentBatch) -> wire.AssignmentBatch:
    return wire.AssignmentBatch(
        task_key=batch.task_key,
        job_id=batch.job_id,
        task_name=batch.task_name,
        instance_count=batch.instance_count,
        spec=batch.spec,
        cluster=batch.cluster,
        index=batch.index,
        attempt=batch.attempt,
        fence=batch.fence,
    )


def assignment_batch_from_wire(message: wire.AssignmentBatch) -> model.AssignmentBatch:
    """Raises InvalidRequest when the columns differ in length."""
    if not len(message.index) == len(message.attempt) == len(message.fence):
        raise InvalidRequest(f"assignments of task {message.task_key}: columns differ in length")
    return model.AssignmentBatch(
        task_key=TaskKey(message.task_key),
        job_id=JobId(message.job_id),
        task_name=TaskName(message.task_name),
        instance_count=message.instance_count,
        spec=message.spec,
        cluster=ClusterName(message.cluster),
        index=tuple(message.index),
        attempt=tuple(message.attempt),
        fence=tuple(message.fence),
    )


def _event_to_wire(event: events.AttemptEvent) -> wire.AttemptEvent:
    ref = event.ref
    message = wire.AttemptEvent(index=ref.index, attempt=ref.attempt, fence=ref.fence, seq=event.seq)
    match event.what:
        case events.Exited() as exited:
            message.exited.CopyFrom(_exited_to_wire(exited))
        case events.Started(image_digest=""):
            message.started.SetInParent()
        case events.Started(image_digest=digest):
            message.started.CopyFrom(wire.Started(image_digest=digest))
        case events.Preparing():
            message.preparing.SetInParent()
        case events.PrepareFailed(kind=kind, reason=reason):
            message.prepare_failed.CopyFrom(wire.PrepareFailed(kind=kind, reason=reason))
        case events.Finalized(note=note):
            message.finalized.CopyFrom(wire.Finalized(note=note))
        case events.FinalizeFailed(reason=reason):
            message.finalize_failed.CopyFrom(wire.FinalizeFailed(reason=reason))
        case events.StoppedEarly():
            message.stopped.SetInParent()
        case events.LostOnNode(kind=kind, reason=reason, stdout_end=out, stderr_end=err):
            message.lost.CopyFrom(wire.Lost(kind=kind, reason=reason, stdout_end=out, stderr_end=err))
    return message


def _happening_from_wire(message: wire.AttemptEvent) -> events.Happening:
    match message.WhichOneof("what"):
        case "exited":
            return _exited_from_wire(message.exited)
        case "started":
            return _started(message.started.image_digest) if message.started.image_digest else _STARTED
        case "preparing":
            return _PREPARING
        case "prepare_failed":
            failed = message.prepare_failed
            return events.PrepareFailed(kind=_failure(failed.kind), reason=failed.reason)
        case "finalized":
            note = message.finalized.note
            return events.Finalized(note=note) if note else _FINALIZED
        case "finalize_failed":
            return events.FinalizeFailed(reason=message.finalize_failed.reason)
        case "stopped":
            return _STOPPED_EARLY
        case "lost":
            lost = message.lost
            return events.LostOnNode(
                kind=_failure(lost.kind),
                reason=lost.reason,
                stdout_end=lost.stdout_end,
                stderr_end=lost.stderr_end,
            )
    raise InvalidRequest(
        f"event {message.seq} of instance {message.index} tells nothing that is known here; "
        "the agent may be a newer version"
    )


def _started(image_digest: str) -> events.Started:
    if not _DIGEST.fullmatch(image_digest):
        raise InvalidRequest("the digest of an image must be like sha256:0123...")
    return events.Started(image_digest=image_digest)


def _exited_to_wire(exited: events.Exited) -> wire.Exited:
    return wire.Exited(
        code=exited.code,
        signal=exited.signal,
        kind=exited.kind or "",
        reason=exited.reason,
        ran_for_us=exited.ran_for_us,
        user_cpu_us=exited.user_cpu_us,
        system_cpu_us=exited.system_cpu_us,
        peak_memory_bytes=exited.peak_memory_bytes,
        stdout_end=exited.stdout_end,
        stderr_end=exited.stderr_end,
        finalizing=exited.finalizing,
        stopped=exited.stopped,
        leftover_processes=exited.leftover_processes,
    )


def _exited_from_wire(message: wire.Exited) -> events.Exited:
    code = message.code if message.HasField("code") else None
    signal = message.signal if message.HasField("signal") else None
    if (code is None) == (signal is None):
        raise InvalidRequest("an exit must have either a code or a signal")
    return events.Exited(
        code=code,
        signal=signal,
        kind=enums.failure_from_wire(message.kind),
        reason=message.reason,
        ran_for_us=message.ran_for_us,
        user_cpu_us=message.user_cpu_us,
        system_cpu_us=message.system_cpu_us,
        peak_memory_bytes=message.peak_memory_bytes,
        stdout_end=message.stdout_end,
        stderr_end=message.stderr_end,
        finalizing=message.finalizing,
        stopped=message.stopped,
        leftover_processes=message.leftover_processes,
    )


def _failure(name: str) -> FailureKind:
    kind = enums.failure_from_wire(name)
    if kind is None:
        raise InvalidRequest("an event that tells of a failure must say which kind")
    return kind
