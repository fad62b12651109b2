"""What agent and coordinator tell each other crosses the wire unchanged."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_proto import convert
from windlass_proto.errors import InvalidRequest
from windlass_proto.model import events
from windlass_proto.model.assignments import (
    AssignmentBatch,
    InventoryItem,
    SessionRef,
    Timing,
    VerdictItem,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, NodeId, TaskKey, TaskName
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict
from windlass_proto.v1 import agent_pb2 as wire

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
refs = st.builds(
    AttemptRef, task_key=st.integers(1, 3).map(TaskKey), index=uint64, attempt=uint32, fence=uint64.map(Fence)
)
kinds = st.sampled_from(FailureKind)
endings = st.tuples(st.integers(-(2**31), 2**31 - 1), st.none()) | st.tuples(st.none(), uint32)
exits = st.builds(
    lambda ending, **rest: events.Exited(code=ending[0], signal=ending[1], **rest),
    endings,
    kind=st.none() | kinds,
    reason=texts,
    ran_for_us=uint64,
    user_cpu_us=uint64,
    system_cpu_us=uint64,
    peak_memory_bytes=uint64,
    stdout_end=uint64,
    stderr_end=uint64,
    finalizing=st.booleans(),
    stopped=st.booleans(),
    leftover_processes=uint32,
)
happenings = st.one_of(
    exits,
    st.builds(events.Preparing),
    st.builds(events.PrepareFailed, kind=kinds, reason=texts),
    st.builds(events.Started),
    st.builds(events.Finalized),
    st.builds(events.FinalizeFailed, reason=texts),
    st.builds(events.StoppedEarly),
    st.builds(events.LostOnNode, kind=kinds, reason=texts),
)
told = st.lists(st.builds(events.AttemptEvent, ref=refs, seq=uint32, what=happenings), max_size=6)


def an_event(task_key: int, index: int) -> events.AttemptEvent:
    ref = AttemptRef(task_key=TaskKey(task_key), index=index, attempt=1, fence=Fence(1))
    return events.AttemptEvent(ref=ref, seq=1, what=events.Started())


@given(told)
def test_events_arrive_as_they_were_sent_and_in_their_order(happened: list[events.AttemptEvent]) -> None:
    sent = wire.ReportRequest(tasks=convert.events_to_wire(happened)).SerializeToString()
    assert convert.events_from_wire(wire.ReportRequest.FromString(sent).tasks) == happened


def test_neighbouring_events_of_one_task_share_a_group_and_no_event_moves() -> None:
    groups = convert.events_to_wire([an_event(1, 0), an_event(1, 1), an_event(2, 0), an_event(1, 2)])
    assert [(group.task_key, [event.index for event in group.events]) for group in groups] == [
        (1, [0, 1]),
        (2, [0]),
        (1, [2]),
    ]


def test_an_event_that_tells_nothing_known_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="event 7 of instance 3 tells nothing that is known here"):
        convert.events_from_wire([wire.TaskEvents(task_key=1, events=[wire.AttemptEvent(index=3, seq=7)])])


@pytest.mark.parametrize("ending", [wire.Exited(), wire.Exited(code=0, signal=9)])
def test_an_exit_has_either_a_code_or_a_signal(ending: wire.Exited) -> None:
    with pytest.raises(InvalidRequest, match="either a code or a signal"):
        convert.events_from_wire([wire.TaskEvents(events=[wire.AttemptEvent(exited=ending)])])


def test_a_failure_kind_that_is_not_known_is_refused_by_name() -> None:
    lost = wire.AttemptEvent(lost=wire.Lost(kind="GREMLINS"))
    with pytest.raises(InvalidRequest, match="'GREMLINS' is not known here"):
        convert.events_from_wire([wire.TaskEvents(events=[lost])])


def test_a_failure_without_a_kind_is_refused() -> None:
    failed = wire.AttemptEvent(prepare_failed=wire.PrepareFailed(reason="disk"))
    with pytest.raises(InvalidRequest, match="must say which kind"):
        convert.events_from_wire([wire.TaskEvents(events=[failed])])


def test_verdicts_keep_their_places() -> None:
    verdicts = [*EventVerdict, EventVerdict.ACCEPTED]
    sent = wire.ReportReply(verdicts=convert.event_verdicts_to_wire(verdicts)).SerializeToString()
    assert convert.event_verdicts_from_wire(wire.ReportReply.FromString(sent).verdicts) == verdicts


def test_a_verdict_of_a_newer_version_is_refused_with_its_number() -> None:
    with pytest.raises(InvalidRequest, match="EventVerdict 99 is not known here"):
        convert.event_verdicts_from_wire([1, 99])


def test_a_verdict_that_is_not_given_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="InventoryVerdict is not given"):
        convert.verdict_item_from_wire(wire.VerdictItem())


def test_assignments_arrive_as_they_were_sent() -> None:
    batch = AssignmentBatch(
        task_key=TaskKey(5),
        job_id=JobId("job-1"),
        task_name=TaskName("count"),
        instance_count=2**40,
        spec=b'{"name":"count"}',
        cluster=ClusterName("default"),
        index=(0, 2**40 - 1),
        attempt=(1, 2),
        fence=((1 << 40) + 1, (1 << 40) + 2),
    )
    sent = convert.assignment_batch_to_wire(batch).SerializeToString()
    assert convert.assignment_batch_from_wire(wire.AssignmentBatch.FromString(sent)) == batch


def test_assignments_whose_columns_differ_in_length_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="task 5: columns differ in length"):
        convert.assignment_batch_from_wire(wire.AssignmentBatch(task_key=5, index=[0], attempt=[1]))


@given(refs, st.sampled_from(AttemptPhase), st.sampled_from(InventoryVerdict), uint32, st.booleans())
def test_the_inventory_and_its_verdicts_arrive_as_they_were_sent(
    ref: AttemptRef, phase: AttemptPhase, verdict: InventoryVerdict, seq: int, has_exit: bool
) -> None:
    item = InventoryItem(ref=ref, phase=phase, seq=seq, has_exit=has_exit)
    answer = VerdictItem(ref=ref, verdict=verdict, from_seq=seq)
    assert convert.inventory_item_from_wire(convert.inventory_item_to_wire(item)) == item
    assert convert.verdict_item_from_wire(convert.verdict_item_to_wire(answer)) == answer


def test_a_session_and_its_timing_arrive_as_they_were_sent() -> None:
    session = SessionRef(node_id=NodeId("node-1"), node_epoch=3, nonce="n")
    timing = Timing(
        heartbeat_interval=timedelta(seconds=5),
        lease=timedelta(seconds=15, microseconds=1),
        poll_wait=timedelta(milliseconds=1500),
        kill_grace=timedelta(seconds=30),
    )
    assert convert.session_ref_from_wire(convert.session_ref_to_wire(session)) == session
    assert convert.timing_from_wire(convert.timing_to_wire(timing)) == timing
