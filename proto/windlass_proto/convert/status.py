"""What users see of jobs and machines <-> its messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from windlass_proto.convert import enums
from windlass_proto.convert.times import (
    duration_from_wire,
    duration_to_wire,
    timestamp_from_wire,
    timestamp_to_wire,
)
from windlass_proto.model import status as model
from windlass_proto.model.ids import ClusterName, JobId, NodeId, TaskName
from windlass_proto.v1 import agent_pb2, clusters_pb2, jobs_pb2


def job_status_to_wire(job: model.JobStatus) -> jobs_pb2.JobStatus:
    return jobs_pb2.JobStatus(
        job_id=job.job_id,
        name=job.name,
        description=job.description,
        state=enums.JOB_STATE.to_wire(job.state),
        reason=job.reason,
        generation=job.generation,
        priority=job.priority,
        fail_on_instance_failure=job.fail_on_instance_failure,
        submitted_at=timestamp_to_wire(job.submitted_at),
        started_at=_time_to_wire(job.started_at),
        ended_at=_time_to_wire(job.ended_at),
        tasks=[task_status_to_wire(task) for task in job.tasks],
    )


def job_status_from_wire(message: jobs_pb2.JobStatus) -> model.JobStatus:
    return model.JobStatus(
        job_id=JobId(message.job_id),
        name=message.name,
        description=message.description,
        state=enums.JOB_STATE.from_wire(message.state),
        reason=message.reason,
        generation=message.generation,
        priority=message.priority,
        fail_on_instance_failure=message.fail_on_instance_failure,
        submitted_at=timestamp_from_wire(message.submitted_at),
        started_at=timestamp_from_wire(message.started_at) if message.HasField("started_at") else None,
        ended_at=timestamp_from_wire(message.ended_at) if message.HasField("ended_at") else None,
        tasks=tuple(task_status_from_wire(task) for task in message.tasks),
    )


def task_status_to_wire(task: model.TaskStatus) -> jobs_pb2.TaskStatus:
    counts = task.counts
    return jobs_pb2.TaskStatus(
        name=task.name,
        state=enums.TASK_STATE.to_wire(task.state),
        after=task.after,
        cluster=task.cluster,
        instances=task.instances,
        counts=jobs_pb2.InstanceCounts(
            waiting=counts.waiting,
            ready=counts.ready,
            active=counts.active,
            retry_wait=counts.retry_wait,
            succeeded=counts.succeeded,
            failed=counts.failed,
            stopped=counts.stopped,
        ),
        started_at=_time_to_wire(task.started_at),
        ended_at=_time_to_wire(task.ended_at),
        reason=task.reason,
    )


def task_status_from_wire(message: jobs_pb2.TaskStatus) -> model.TaskStatus:
    counts = message.counts
    return model.TaskStatus(
        name=TaskName(message.name),
        state=enums.TASK_STATE.from_wire(message.state),
        after=tuple(TaskName(name) for name in message.after),
        cluster=ClusterName(message.cluster),
        instances=message.instances,
        counts=model.InstanceCounts(
            waiting=counts.waiting,
            ready=counts.ready,
            active=counts.active,
            retry_wait=counts.retry_wait,
            succeeded=counts.succeeded,
            failed=counts.failed,
            stopped=counts.stopped,
        ),
        started_at=timestamp_from_wire(message.started_at) if message.HasField("started_at") else None,
        ended_at=timestamp_from_wire(message.ended_at) if message.HasField("ended_at") else None,
        reason=message.reason,
    )


def instance_status_to_wire(instance: model.InstanceStatus) -> jobs_pb2.InstanceStatus:
    return jobs_pb2.InstanceStatus(
        task=instance.task,
        index=instance.index,
        state=enums.INSTANCE_STATE.to_wire(instance.state),
        user_failures=instance.user_failures,
        infra_failures=instance.infra_failures,
        attempts=[attempt_status_to_wire(attempt) for attempt in instance.attempts],
    )


def instance_status_from_wire(message: jobs_pb2.InstanceStatus) -> model.InstanceStatus:
    return model.InstanceStatus(
        task=TaskName(message.task),
        index=message.index,
        state=enums.INSTANCE_STATE.from_wire(message.state),
        user_failures=message.user_failures,
        infra_failures=message.infra_failures,
        attempts=tuple(attempt_status_from_wire(attempt) for attempt in message.attempts),
    )


def attempt_status_to_wire(attempt: model.AttemptStatus) -> jobs_pb2.AttemptStatus:
    return jobs_pb2.AttemptStatus(
        attempt=attempt.attempt,
        fence=attempt.fence,
        state=enums.ATTEMPT_STATE.to_wire(attempt.state),
        node_id=attempt.node_id,
        node_name=attempt.node_name,
        failure=attempt.failure or "",
        reason=attempt.reason,
        exit_code=attempt.exit_code,
        exit_signal=attempt.exit_signal,
        leased_at=timestamp_to_wire(attempt.leased_at),
        started_at=_time_to_wire(attempt.started_at),
        ended_at=_time_to_wire(attempt.ended_at),
        ran_for=None if attempt.ran_for is None else duration_to_wire(attempt.ran_for),
        user_cpu=None if attempt.user_cpu is None else duration_to_wire(attempt.user_cpu),
        system_cpu=None if attempt.system_cpu is None else duration_to_wire(attempt.system_cpu),
        peak_memory_bytes=attempt.peak_memory_bytes,
        stdout_bytes=attempt.stdout_bytes,
        stderr_bytes=attempt.stderr_bytes,
        image_digest=attempt.image_digest,
    )


def attempt_status_from_wire(message: jobs_pb2.AttemptStatus) -> model.AttemptStatus:
    return model.AttemptStatus(
        attempt=message.attempt,
        fence=message.fence,
        state=enums.ATTEMPT_STATE.from_wire(message.state),
        node_id=NodeId(message.node_id),
        node_name=message.node_name,
        failure=enums.failure_from_wire(message.failure),
        reason=message.reason,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        exit_signal=message.exit_signal if message.HasField("exit_signal") else None,
        leased_at=timestamp_from_wire(message.leased_at),
        started_at=timestamp_from_wire(message.started_at) if message.HasField("started_at") else None,
        ended_at=timestamp_from_wire(message.ended_at) if message.HasField("ended_at") else None,
        ran_for=duration_from_wire(message.ran_for) if message.HasField("ran_for") else None,
        user_cpu=duration_from_wire(message.user_cpu) if message.HasField("user_cpu") else None,
        system_cpu=duration_from_wire(message.system_cpu) if message.HasField("system_cpu") else None,
        peak_memory_bytes=message.peak_memory_bytes,
        stdout_bytes=message.stdout_bytes if message.HasField("stdout_bytes") else None,
        stderr_bytes=message.stderr_bytes if message.HasField("stderr_bytes") else None,
        image_digest=message.image_digest,
    )


def log_chunk_to_wire(chunk: model.LogChunk) -> jobs_pb2.LogChunk:
    return jobs_pb2.LogChunk(
        offset=chunk.offset,
        data=chunk.data,
        gap_bytes=chunk.gap_bytes,
        gap_reason=chunk.gap_reason,
        state=None if chunk.state is None else enums.LOG_STATE.to_wire(chunk.state),
        attempt=chunk.attempt,
    )


def log_chunk_from_wire(message: jobs_pb2.LogChunk) -> model.LogChunk:
    return model.LogChunk(
        offset=message.offset,
        data=message.data,
        gap_bytes=message.gap_bytes,
        gap_reason=message.gap_reason,
        state=enums.LOG_STATE.from_wire(message.state) if message.state else None,
        attempt=message.attempt,
    )


def cluster_status_to_wire(cluster: model.ClusterStatus) -> clusters_pb2.ClusterStatus:
    return clusters_pb2.ClusterStatus(
        name=cluster.name,
        description=cluster.description,
        nodes_ready=cluster.nodes_ready,
        slots=cluster.slots,
        created_at=timestamp_to_wire(cluster.created_at),
    )


def cluster_status_from_wire(message: clusters_pb2.ClusterStatus) -> model.ClusterStatus:
    return model.ClusterStatus(
        name=ClusterName(message.name),
        description=message.description,
        nodes_ready=message.nodes_ready,
        slots=message.slots,
        created_at=timestamp_from_wire(message.created_at),
    )


def node_status_to_wire(node: model.NodeStatus) -> clusters_pb2.NodeStatus:
    return clusters_pb2.NodeStatus(
        node_id=node.node_id,
        name=node.name,
        cluster=node.cluster,
        state=enums.NODE_STATE.to_wire(node.state),
        slots=node.slots,
        live_attempts=node.live_attempts,
        cpu=node.cpu,
        memory_bytes=node.memory_bytes,
        agent_version=node.agent_version,
        joined_at=timestamp_to_wire(node.joined_at),
        last_seen_at=_time_to_wire(node.last_seen_at),
        containment=node.containment,
        reason=node.reason,
        gpus=node.gpus,
    )


def node_status_from_wire(message: clusters_pb2.NodeStatus) -> model.NodeStatus:
    return model.NodeStatus(
        node_id=NodeId(message.node_id),
        name=message.name,
        cluster=ClusterName(message.cluster),
        state=enums.NODE_STATE.from_wire(message.state),
        slots=message.slots,
        live_attempts=message.live_attempts,
        cpu=message.cpu,
        memory_bytes=message.memory_bytes,
        agent_version=message.agent_version,
        joined_at=timestamp_from_wire(message.joined_at),
        last_seen_at=timestamp_from_wire(message.last_seen_at) if message.HasField("last_seen_at") else None,
        containment=message.containment,
        reason=message.reason,
        gpus=message.gpus,
    )


def node_facts_to_wire(facts: model.NodeFacts) -> agent_pb2.NodeFacts:
    return agent_pb2.NodeFacts(
        name=facts.name,
        slots=facts.slots,
        cpu=facts.cpu,
        memory_bytes=facts.memory_bytes,
        agent_version=facts.agent_version,
        os=facts.os,
        containment=facts.containment,
        gpus=facts.gpus,
    )


def node_facts_from_wire(message: agent_pb2.NodeFacts) -> model.NodeFacts:
    return model.NodeFacts(
        name=message.name,
        slots=message.slots,
        cpu=message.cpu,
        memory_bytes=message.memory_bytes,
        agent_version=message.agent_version,
        os=message.os,
        containment=message.containment,
        gpus=message.gpus,
    )


def _time_to_wire(time: datetime | None) -> Timestamp | None:
    return None if time is None else timestamp_to_wire(time)
