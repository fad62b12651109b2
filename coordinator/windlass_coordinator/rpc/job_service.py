"""What users call about jobs: messages become values, a verb runs, its outcome becomes a message."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.engine import steer
from windlass_coordinator.engine.explain import explain, is_to_explain
from windlass_coordinator.engine.submit import Submission, submit
from windlass_coordinator.rpc.interceptors import Context, current_caller
from windlass_coordinator.rpc.job_watch import JobWatchers
from windlass_coordinator.rpc.log_archive import stream_key
from windlass_coordinator.rpc.paging import make_token, page_size, read_token
from windlass_coordinator.rpc.read_log import LogTail, StreamFacts
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto import convert
from windlass_proto.checks import SpecLimits, check_job
from windlass_proto.checks.words import Findings, check_between, check_text
from windlass_proto.errors import InvalidJob, InvalidRequest, NotFound
from windlass_proto.failpoints import reach
from windlass_proto.model.ids import JobId, TenantId
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import LogState, LogStream
from windlass_proto.model.status import JobStatus
from windlass_proto.v1 import jobs_pb2 as wire
from windlass_proto.v1 import jobs_pb2_grpc
from windlass_proto.v1.specs_pb2 import JobSpec as WireJobSpec

# Telling how a job stands may cost at most this share of the time.
_WATCH_DUTY = 0.05
# The status of a job of up to this many tasks is read in less time than a trip to another thread takes.
_SMALL_JOB_TASKS = 16
_LONGEST_KEY = 128
_LONGEST_FILTER = 1024

_OUR_STREAM = {wire.LOG_STREAM_STDOUT: LogStream.STDOUT, wire.LOG_STREAM_STDERR: LogStream.STDERR}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobServiceParts:
    """What the service works with."""

    store: Store
    watchers: JobWatchers
    tail: LogTail
    limits: SpecLimits


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """Implements `windlass.v1.JobService`."""

    def __init__(self, parts: JobServiceParts) -> None:
        self._store = parts.store
        self._watchers = parts.watchers
        self._tail = parts.tail
        self._limits = parts.limits

    async def SubmitJob(self, request: wire.SubmitJobRequest, context: Context) -> wire.SubmitJobReply:
        tenant = current_caller().tenant
        if len(request.idempotency_key) > _LONGEST_KEY:
            raise InvalidRequest(f"idempotency_key: must have at most {_LONGEST_KEY} characters")
        spec = convert.job_spec_from_wire(request.spec)
        problems = check_job(spec, self._limits)
        if problems:
            raise InvalidJob(problems)
        submission = Submission(
            tenant=tenant,
            spec=spec,
            idempotency_key=request.idempotency_key,
            job_id=JobId(f"job-{secrets.token_hex(16)}"),
        )
        done = await self._store.run(lambda tx: submit(tx, submission, now=_now()))
        reach("coord.submit.after_commit")
        return wire.SubmitJobReply(job_id=done.job_id, already_existed=done.already_existed)

    async def GetJob(self, request: wire.GetJobRequest, context: Context) -> wire.JobStatus:
        tenant = current_caller().tenant
        status = await self._status(tenant, request.job_id)
        if is_to_explain(status):
            job_id = status.job_id
            waiting = await self._store.read(lambda queries: queries.waiting_tasks(job_id, tenant=tenant))
            status = explain(status, waiting)
        return convert.job_status_to_wire(status)

    async def GetJobSpec(self, request: wire.GetJobRequest, context: Context) -> WireJobSpec:
        tenant, job_id = current_caller().tenant, JobId(request.job_id)

        def verb(tx: Transaction) -> JobSpec:
            spec = tx.job_spec(job_id, tenant=tenant)
            if spec is None:
                raise _no_job(job_id)
            return spec

        return convert.job_spec_to_wire(await self._store.run(verb))

    async def ListJobs(self, request: wire.ListJobsRequest, context: Context) -> wire.ListJobsReply:
        tenant = current_caller().tenant
        limit = page_size(request.page_size)
        states = [convert.JOB_STATE.from_wire(state) for state in request.states]
        before = read_token(request.page_token, length=1)
        findings = Findings()
        check_text(findings, "name_contains", request.name_contains, longest_bytes=_LONGEST_FILTER)
        findings.raise_if_any()
        jobs, more = await self._store.read(
            lambda queries: queries.list_jobs(
                tenant,
                states=states,
                name_contains=request.name_contains,
                limit=limit,
                before=before[0] if before else None,
            )
        )
        return wire.ListJobsReply(
            jobs=[convert.job_status_to_wire(job) for job in jobs],
            next_page_token="" if more is None else make_token(more),
        )

    async def ListInstances(
        self, request: wire.ListInstancesRequest, context: Context
    ) -> wire.ListInstancesReply:
        tenant, job_id = current_caller().tenant, JobId(request.job_id)
        limit = page_size(request.page_size)
        after = read_token(request.page_token, length=2)
        found = await self._store.read(
            lambda queries: queries.list_instances(
                job_id,
                tenant=tenant,
                task=request.task,
                index=request.index if request.HasField("index") else None,
                limit=limit,
                after=(after[0], after[1]) if after else None,
                all_attempts=request.all_attempts,
            )
        )
        if found is None:
            raise (
                NotFound(f"there is no task {request.task!r} of job {job_id}")
                if request.task
                else _no_job(job_id)
            )
        instances, more = found
        return wire.ListInstancesReply(
            instances=[convert.instance_status_to_wire(instance) for instance in instances],
            next_page_token="" if more is None else make_token(*more),
        )

    async def StopJob(self, request: wire.StopJobRequest, context: Context) -> wire.JobStatus:
        return await self._steer(
            request.job_id, lambda tx, tenant, job_id: steer.stop(tx, tenant, job_id, now=_now())
        )

    async def RestartJob(self, request: wire.RestartJobRequest, context: Context) -> wire.JobStatus:
        return await self._steer(
            request.job_id,
            lambda tx, tenant, job_id: steer.restart(
                tx, tenant, job_id, all_instances=request.all_instances, now=_now()
            ),
        )

    async def DeleteJob(self, request: wire.DeleteJobRequest, context: Context) -> wire.DeleteJobReply:
        tenant, job_id = current_caller().tenant, JobId(request.job_id)
        deleted = await self._store.run(
            lambda tx: steer.delete(tx, tenant, job_id, stop_first=request.stop_first, now=_now())
        )
        return wire.DeleteJobReply(deleted=deleted)

    async def UpdatePriority(self, request: wire.UpdatePriorityRequest, context: Context) -> wire.JobStatus:
        bound = self._limits.priority
        findings = Findings()
        check_between(findings, "priority", request.priority, low=-bound, high=bound)
        findings.raise_if_any()
        return await self._steer(
            request.job_id,
            lambda tx, tenant, job_id: steer.update_priority(
                tx, tenant, job_id, priority=request.priority, now=_now()
            ),
        )

    async def WatchJob(self, request: wire.GetJobRequest, context: Context) -> AsyncIterator[wire.JobStatus]:
        tenant, loop = current_caller().tenant, asyncio.get_running_loop()
        is_small = False
        with self._watchers.watching(JobId(request.job_id)) as watch:
            while True:
                watch.changed.clear()
                began = loop.time()
                status = await self._status(tenant, request.job_id, is_small=is_small)
                is_small = len(status.tasks) <= _SMALL_JOB_TASKS
                yield convert.job_status_to_wire(status)
                if status.state.is_terminal:
                    return
                # What it costs to tell of a large job bounds how often it is told; the end is told at once.
                pause_s = (loop.time() - began) / _WATCH_DUTY
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await watch.ended.wait()
                await watch.changed.wait()

    async def ReadLog(self, request: wire.ReadLogRequest, context: Context) -> AsyncIterator[wire.LogChunk]:
        tenant = current_caller().tenant
        stream = _OUR_STREAM.get(request.stream)
        if stream is None:
            raise InvalidRequest("stream: must be stdout or stderr")
        if request.limit < 0:
            raise InvalidRequest(f"limit: must be >= 0 (is {request.limit})")
        found = await self._first_facts(tenant, request)
        if not isinstance(found, LogFacts):
            yield wire.LogChunk(state=convert.LOG_STATE.to_wire(found))
            return

        async def facts() -> StreamFacts:
            now = await self._log_facts(tenant, request, found.attempt)
            if now is None:
                raise _no_job(request.job_id)
            end = now.stdout_end if stream is LogStream.STDOUT else now.stderr_end
            return StreamFacts(
                ended=now.ended,
                final_end=end,
                attempt=now.attempt,
                is_given_up=now.is_given_up,
                is_lost=now.is_lost,
            )

        async for chunk in self._tail.read(
            stream_key(found, stream),
            offset=request.offset,
            limit=request.limit,
            follow=request.follow,
            facts=facts,
        ):
            # Who is cut off goes on with this attempt, even when a newer one has begun meanwhile.
            chunk.attempt = found.attempt
            yield chunk

    async def _first_facts(self, tenant: TenantId, request: wire.ReadLogRequest) -> LogFacts | LogState:
        """The attempt whose log is meant. While there is none a follower waits, others get the state of the
        empty log: whether anything may still come."""
        with self._watchers.watching(JobId(request.job_id)) as watch:
            while True:
                watch.changed.clear()
                found = await self._log_facts(tenant, request, request.attempt)
                if found is not None:
                    return found
                status = await self._status(tenant, request.job_id)
                task = next((task for task in status.tasks if task.name == request.task), None)
                if task is None or not 0 <= request.index < task.instances:
                    raise NotFound(f"there is no instance {request.task}/{request.index} of {request.job_id}")
                if request.attempt:
                    raise NotFound(f"there is no attempt {request.attempt} of {request.task}/{request.index}")
                if status.state.is_terminal or task.state.is_terminal:
                    return LogState.COMPLETE
                if not request.follow:
                    return LogState.STREAMING
                await watch.changed.wait()

    async def _log_facts(
        self, tenant: TenantId, request: wire.ReadLogRequest, attempt: int
    ) -> LogFacts | None:
        return await self._store.run(
            lambda tx: tx.log_facts(
                JobId(request.job_id),
                tenant=tenant,
                task=request.task,
                index=min(request.index, 2**62),
                attempt=attempt,
            )
        )

    async def _steer(
        self, job_id: str, verb: Callable[[Transaction, TenantId, JobId], None]
    ) -> wire.JobStatus:
        tenant = current_caller().tenant
        await self._store.run(lambda tx: verb(tx, tenant, JobId(job_id)))
        reach("coord.stop.after_commit")
        return convert.job_status_to_wire(await self._status(tenant, job_id))

    async def _status(self, tenant: TenantId, job_id: str, *, is_small: bool = False) -> JobStatus:
        read = self._store.read_small if is_small else self._store.read
        status = await read(lambda queries: queries.job_status(JobId(job_id), tenant=tenant))
        if status is None:
            raise _no_job(job_id)
        return status


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}")


def _now() -> datetime:
    return datetime.now(UTC)
