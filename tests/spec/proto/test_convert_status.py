"""What users see of jobs and machines crosses the wire unchanged, and what is not known is not 0."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_proto import convert
from windlass_proto.errors import InvalidRequest
from windlass_proto.model import status
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.states import AttemptState, InstanceState, JobState, LogState, NodeState, TaskState
from windlass_proto.v1 import clusters_pb2, jobs_pb2

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
durations = st.timedeltas(timedelta(0), timedelta(days=400))
counts = st.builds(
    status.InstanceCounts,
    waiting=uint64,
    ready=uint64,
    active=uint64,
    retry_wait=uint64,
    succeeded=uint64,
    failed=uint64,
    stopped=uint64,
)
tasks = st.builds(
    status.TaskStatus,
    name=texts,
    state=st.sampled_from(TaskState),
    after=st.lists(texts, max_size=2).map(tuple),
    cluster=texts,
    instances=uint64,
    counts=counts,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    reason=texts,
)
jobs = st.builds(
    status.JobStatus,
    job_id=texts,
    name=texts,
    description=texts,
    state=st.sampled_from(JobState),
    reason=texts,
    generation=uint32,
    priority=st.integers(-(2**63), 2**63 - 1),
    fail_on_instance_failure=st.booleans(),
    submitted_at=times,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    tasks=st.lists(tasks, max_size=2).map(tuple),
)
attempts = st.builds(
    status.AttemptStatus,
    attempt=uint32,
    fence=uint64,
    state=st.sampled_from(AttemptState),
    node_id=texts,
    node_name=texts,
    failure=st.none() | st.sampled_from(FailureKind),
    reason=texts,
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    exit_signal=st.none() | uint32,
    leased_at=times,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    ran_for=st.none() | durations,
    user_cpu=st.none() | durations,
    system_cpu=st.none() | durations,
    peak_memory_bytes=uint64,
    stdout_bytes=st.none() | uint64,
    stderr_bytes=st.none() | uint64,
)
instances = st.builds(
    status.InstanceStatus,
    task=texts,
    index=uint64,
    state=st.sampled_from(InstanceState),
    user_failures=uint32,
    infra_failures=uint32,
    attempts=st.lists(attempts, max_size=2).map(tuple),
)
chunks = st.builds(
    status.LogChunk,
    offset=uint64,
    data=st.binary(max_size=10),
    gap_bytes=uint64,
    gap_reason=texts,
    state=st.none() | st.sampled_from(LogState),
    attempt=uint32,
)
clusters = st.builds(
    status.ClusterStatus, name=texts, description=texts, nodes_ready=uint32, slots=uint32, created_at=times
)
nodes = st.builds(
    status.NodeStatus,
    node_id=texts,
    name=texts,
    cluster=texts,
    state=st.sampled_from(NodeState),
    slots=uint32,
    live_attempts=uint32,
    cpu=st.floats(allow_nan=False),
    memory_bytes=uint64,
    agent_version=texts,
    joined_at=times,
    last_seen_at=st.none() | times,
    containment=texts,
)
facts = st.builds(
    status.NodeFacts,
    name=texts,
    slots=uint32,
    cpu=st.floats(allow_nan=False),
    memory_bytes=uint64,
    agent_version=texts,
    os=texts,
    containment=texts,
)


@given(jobs)
def test_a_jobs_status_arrives_as_it_was_sent(job: status.JobStatus) -> None:
    sent = convert.job_status_to_wire(job).SerializeToString()
    assert convert.job_status_from_wire(jobs_pb2.JobStatus.FromString(sent)) == job


@given(instances)
def test_an_instances_status_arrives_as_it_was_sent(instance: status.InstanceStatus) -> None:
    sent = convert.instance_status_to_wire(instance).SerializeToString()
    assert convert.instance_status_from_wire(jobs_pb2.InstanceStatus.FromString(sent)) == instance


@given(chunks, clusters, nodes, facts)
def test_log_chunks_clusters_nodes_and_facts_arrive_as_they_were_sent(
    chunk: status.LogChunk,
    cluster: status.ClusterStatus,
    node: status.NodeStatus,
    machine: status.NodeFacts,
) -> None:
    assert convert.log_chunk_from_wire(convert.log_chunk_to_wire(chunk)) == chunk
    assert convert.cluster_status_from_wire(convert.cluster_status_to_wire(cluster)) == cluster
    sent = convert.node_status_to_wire(node).SerializeToString()
    assert convert.node_status_from_wire(clusters_pb2.NodeStatus.FromString(sent)) == node
    assert convert.node_facts_from_wire(convert.node_facts_to_wire(machine)) == machine


@given(st.timedeltas())
def test_a_duration_of_any_sign_and_length_arrives_as_it_was_sent(duration: timedelta) -> None:
    message = convert.duration_to_wire(duration)
    assert message.seconds * message.nanos >= 0
    if abs(duration) < timedelta(days=999_999_998):
        assert convert.duration_from_wire(message) == duration


def test_a_time_that_no_calendar_has_is_refused() -> None:
    job = jobs_pb2.JobStatus(state=jobs_pb2.JOB_STATE_RUNNING, submitted_at={"seconds": 2**60})
    with pytest.raises(InvalidRequest, match="out of range"):
        convert.job_status_from_wire(job)


def test_a_state_of_a_newer_version_is_refused_with_its_number() -> None:
    with pytest.raises(InvalidRequest, match="JobState 42 is not known here; the other side may be a newer"):
        convert.JOB_STATE.from_wire(42)
