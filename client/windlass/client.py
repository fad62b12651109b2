"""The asynchronous SDK.

    async with Client.open() as client:
        job_id = await client.submit(spec)
        status = await client.wait(job_id)

Calls that find no coordinator try again for `patience`, so a restart of the coordinator is not an error.
Every submit carries a key that makes such a repeat safe. Streams go on where they were cut off.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from windlass.channel import Connection, Patience
from windlass.profile import Profile, find_profile
from windlass_proto import convert
from windlass_proto.checks import SpecLimits
from windlass_proto.checks.secrets import check_secret
from windlass_proto.checks.words import Findings
from windlass_proto.errors import InvalidRequest, NotFound, Unavailable
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, JobId
from windlass_proto.model.secrets import Login, SecretStatus, document_of
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import JobState, LogStream
from windlass_proto.model.status import ClusterStatus, InstanceStatus, JobStatus, LogChunk, NodeStatus
from windlass_proto.model.storage import StorageProfile
from windlass_proto.v1 import (
    clusters_pb2,
    clusters_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    secrets_pb2,
    secrets_pb2_grpc,
)

CALL_TIMEOUT = timedelta(seconds=30)
"""Of one try of one call."""
PATIENCE = timedelta(seconds=10)
"""How long a call is tried again: a coordinator that is restarted is back in a few seconds."""
STREAM_PATIENCE = timedelta(minutes=10)
"""How long a stream that was cut off is tried again: whoever follows a job waits anyway."""
JOIN_TOKEN_LIFE = timedelta(minutes=15)
"""Enough to type it on another machine, and short enough for one that leaks."""
_PAGE_SIZE = 200

Message = TypeVar("Message")


class Client:
    """One coordinator, seen by one user. Belongs to the event loop it is first used in."""

    def __init__(
        self,
        profile: Profile,
        *,
        timeout: timedelta = CALL_TIMEOUT,
        patience: timedelta = PATIENCE,
        stream_patience: timedelta = STREAM_PATIENCE,
    ) -> None:
        self.profile = profile
        self._timeout = timeout
        self._patience = patience
        self._stream_patience = stream_patience
        self._connection = Connection(profile.coordinator, token=profile.token())
        channel = self._connection.channel
        self._jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self._clusters = clusters_pb2_grpc.ClusterServiceStub(channel)
        self._nodes = clusters_pb2_grpc.NodeServiceStub(channel)
        self._secrets = secrets_pb2_grpc.SecretServiceStub(channel)

    @classmethod
    def open(cls, profile: Profile | None = None) -> Self:
        """A client of the profile given, else of the one found (WINDLASS_PROFILE, laptop mode)."""
        return cls(profile or find_profile())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobId:
        """Makes a job. Without a key of your own each call makes one job, however often it is tried."""
        try:
            wire_spec = convert.job_spec_to_wire(spec)
        except ValueError as error:
            raise InvalidRequest(f"the job cannot be sent: {error}") from error
        key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
        request = jobs_pb2.SubmitJobRequest(spec=wire_spec, idempotency_key=key)
        reply = await self._call(self._jobs.SubmitJob, request)
        return JobId(reply.job_id)

    async def get(self, job_id: JobId) -> JobStatus:
        """The job now, with its tasks."""
        reply = await self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
        return convert.job_status_from_wire(reply)

    async def get_spec(self, job_id: JobId) -> JobSpec:
        """The specification exactly as it was accepted."""
        reply = await self._call(self._jobs.GetJobSpec, jobs_pb2.GetJobRequest(job_id=job_id))
        return convert.job_spec_from_wire(reply)

    async def list(
        self, *, states: Sequence[JobState] = (), name_contains: str = "", page_size: int = _PAGE_SIZE
    ) -> AsyncGenerator[JobStatus, None]:
        """Jobs, newest first, without their tasks; pages are fetched as they are needed."""
        request = _message(
            jobs_pb2.ListJobsRequest,
            states=convert.JOB_STATE.all_to_wire(states),
            name_contains=name_contains,
            page_size=page_size,
        )
        while True:
            reply = await self._call(self._jobs.ListJobs, request)
            for job in reply.jobs:
                yield convert.job_status_from_wire(job)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def instances(
        self,
        job_id: JobId,
        task: str = "",
        *,
        index: int | None = None,
        all_attempts: bool = False,
        page_size: int = _PAGE_SIZE,
    ) -> AsyncGenerator[InstanceStatus, None]:
        """Instances that have been claimed at least once, of one task or all."""
        request = _message(
            jobs_pb2.ListInstancesRequest,
            job_id=job_id,
            task=task,
            index=index,
            page_size=page_size,
            all_attempts=all_attempts,
        )
        while True:
            reply = await self._call(self._jobs.ListInstances, request)
            for instance in reply.instances:
                yield convert.instance_status_from_wire(instance)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def stop(self, job_id: JobId) -> JobStatus:
        """Asks the job to stop; what runs is ended on its node."""
        reply = await self._call(self._jobs.StopJob, jobs_pb2.StopJobRequest(job_id=job_id))
        return convert.job_status_from_wire(reply)

    async def restart(self, job_id: JobId, *, all_instances: bool = False) -> JobStatus:
        """Runs a finished job again: what has not succeeded, or everything. Made once: a repeat would be
        refused, because the job is not finished any more."""
        request = jobs_pb2.RestartJobRequest(job_id=job_id, all_instances=all_instances)
        reply = await self._connection.call(
            self._jobs.RestartJob, request, timeout=self._timeout, patience=timedelta()
        )
        return convert.job_status_from_wire(reply)

    async def delete(self, job_id: JobId, *, stop_first: bool = False) -> bool:
        """False when the job is being stopped and goes when that is done."""
        request = jobs_pb2.DeleteJobRequest(job_id=job_id, stop_first=stop_first)
        reply = await self._call(self._jobs.DeleteJob, request)
        return bool(reply.deleted)

    async def set_priority(self, job_id: JobId, priority: int) -> JobStatus:
        """Higher runs first; counts for what has not been claimed yet."""
        request = _message(jobs_pb2.UpdatePriorityRequest, job_id=job_id, priority=priority)
        reply = await self._call(self._jobs.UpdatePriority, request)
        return convert.job_status_from_wire(reply)

    async def watch(self, job_id: JobId) -> AsyncGenerator[JobStatus, None]:
        """The status now and after each change, until the job has ended."""
        patience_left = Patience(patience=self._stream_patience)
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        last: JobStatus | None = None
        while last is None or not last.state.is_terminal:
            try:
                async for message in self._connection.stream(self._jobs.WatchJob, request):
                    status = convert.job_status_from_wire(message)
                    if status != last:
                        yield status
                        patience_left.reset()
                    last = status
            except Unavailable:
                if not await patience_left.pause():
                    raise
            else:
                if (last is None or not last.state.is_terminal) and not await patience_left.pause():
                    raise Unavailable(f"the coordinator keeps ending the watch of {job_id}: try again")

    async def wait(self, job_id: JobId) -> JobStatus:
        """The job's final status, as the coordinator has stored it."""
        while True:
            async for _ in self.watch(job_id):
                pass
            status = await self.get(job_id)
            if status.state.is_terminal:
                return status

    async def read_log(
        self,
        job_id: JobId,
        task: str,
        index: int = 0,
        *,
        stream: LogStream = LogStream.STDOUT,
        attempt: int = 0,
        offset: int = 0,
        limit: int = 0,
    ) -> AsyncGenerator[LogChunk, None]:
        """What is stored now; the last of it may still be on its way when a job has just ended (`follow_log`
        waits for it). `attempt` 0 = the newest; a negative offset counts from the end."""
        request = _message(
            jobs_pb2.ReadLogRequest,
            job_id=job_id,
            task=task,
            index=index,
            attempt=attempt,
            stream=convert.LOG_STREAM.to_wire(stream),
            offset=offset,
            limit=limit,
        )
        async for message in self._connection.stream(self._jobs.ReadLog, request):
            yield convert.log_chunk_from_wire(message)

    async def follow_log(
        self,
        job_id: JobId,
        task: str,
        index: int = 0,
        *,
        stream: LogStream = LogStream.STDOUT,
        attempt: int = 0,
        offset: int = 0,
    ) -> AsyncGenerator[LogChunk, None]:
        """From `offset` on, until the stream is complete; cut off, it goes on at the attempt's next byte."""
        patience_left = Patience(patience=self._stream_patience)
        request = _message(
            jobs_pb2.ReadLogRequest,
            job_id=job_id,
            task=task,
            index=index,
            attempt=attempt,
            stream=convert.LOG_STREAM.to_wire(stream),
            offset=offset,
            follow=True,
        )
        while True:
            try:
                async for message in self._connection.stream(self._jobs.ReadLog, request):
                    chunk = convert.log_chunk_from_wire(message)
                    request.attempt = chunk.attempt  # a newer one must not go on where this one was cut off
                    if chunk.data or chunk.gap_bytes or not chunk.state:
                        request.offset = chunk.offset + len(chunk.data) + chunk.gap_bytes
                    yield chunk
                    patience_left.reset()
                    if chunk.state is not None:
                        return
            except Unavailable:
                if not await patience_left.pause():
                    raise
            else:
                if not await patience_left.pause():
                    raise Unavailable(f"the coordinator keeps ending the log of {job_id}: try again")

    async def drain_node(self, node: str, *, within: timedelta | None = None) -> NodeStatus:
        """No new work for the node (its id or name). What still runs after `within` is given to others at no
        cost to its retries; None = it may finish. Raises NotFound, and Conflict for a node that is gone."""
        request = clusters_pb2.DrainNodeRequest(node_id=node)
        if within is not None:
            request.within.CopyFrom(convert.duration_to_wire(within))
        return convert.node_status_from_wire(await self._call(self._nodes.DrainNode, request))

    async def resume_node(self, node: str) -> NodeStatus:
        """A draining, drained or quarantined node (its id or name) takes work again. Raises NotFound."""
        request = clusters_pb2.ResumeNodeRequest(node_id=node)
        return convert.node_status_from_wire(await self._call(self._nodes.ResumeNode, request))

    async def nodes(self, cluster: str = "", *, include_gone: bool = False) -> tuple[NodeStatus, ...]:
        """The machines, of one cluster or all."""
        request = clusters_pb2.ListNodesRequest(cluster=cluster, include_gone=include_gone)
        reply = await self._call(self._nodes.ListNodes, request)
        return tuple(convert.node_status_from_wire(node) for node in reply.nodes)

    async def clusters(self) -> tuple[ClusterStatus, ...]:
        reply = await self._call(self._clusters.ListClusters, clusters_pb2.ListClustersRequest())
        return tuple(convert.cluster_status_from_wire(cluster) for cluster in reply.clusters)

    async def create_cluster(self, name: str, *, description: str = "") -> ClusterStatus:
        request = clusters_pb2.CreateClusterRequest(name=name, description=description)
        reply = await self._call(self._clusters.CreateCluster, request)
        return convert.cluster_status_from_wire(reply)

    async def delete_cluster(self, name: str) -> None:
        """Refused while it has nodes or work."""
        await self._call(self._clusters.DeleteCluster, clusters_pb2.DeleteClusterRequest(name=name))

    async def create_join_token(
        self,
        cluster: ClusterName = DEFAULT_CLUSTER,
        *,
        uses: int = 1,
        valid_for: timedelta = JOIN_TOKEN_LIFE,
    ) -> tuple[str, datetime]:
        """A secret with which agents join the cluster, and when it expires."""
        request = _message(
            clusters_pb2.CreateJoinTokenRequest,
            cluster=cluster,
            uses=uses,
            valid_for=convert.duration_to_wire(valid_for),
        )
        reply = await self._call(self._clusters.CreateJoinToken, request)
        return str(reply.token), convert.timestamp_from_wire(reply.expires_at)

    async def put_secret(self, name: str, value: StorageProfile | Login) -> SecretStatus:
        """Stores it under the name, in place of one of that name. It is never given back."""
        kind, document = document_of(value)
        findings = Findings()
        check_secret(findings, name, kind, document, limits=SpecLimits())
        findings.raise_if_any()
        request = secrets_pb2.PutSecretRequest(
            name=name, kind=convert.SECRET_KIND.to_wire(kind), document=document
        )
        return convert.secret_status_from_wire(await self._call(self._secrets.PutSecret, request))

    async def secrets(self) -> tuple[SecretStatus, ...]:
        """What is stored, without values."""
        reply = await self._call(self._secrets.ListSecrets, secrets_pb2.ListSecretsRequest())
        return tuple(convert.secret_status_from_wire(secret) for secret in reply.secrets)

    async def delete_secret(self, name: str) -> None:
        """Attempts that still need it fail. Raises NotFound."""
        await self._call(self._secrets.DeleteSecret, secrets_pb2.DeleteSecretRequest(name=name))

    async def newest(self) -> JobStatus:
        """The job submitted last."""
        async for job in self.list(page_size=1):
            return job
        raise NotFound("there is no job yet: submit one with `windlass submit`")

    async def _call(self, method: Any, request: Any) -> Any:  # Any: generated stubs, one type per message
        return await self._connection.call(method, request, timeout=self._timeout, patience=self._patience)


def _message(kind: Callable[..., Message], **fields: object) -> Message:
    """A message of this kind. Raises InvalidRequest for a number that no message can hold."""
    try:
        return kind(**fields)
    except ValueError as error:
        raise InvalidRequest(f"the request cannot be sent: {error}") from error
