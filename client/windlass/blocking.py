"""The SDK for programs without an event loop.

    with BlockingClient.open() as client:
        job_id = client.submit(spec)
        print(client.wait(job_id, timeout=timedelta(hours=1)).state)

The same calls as `Client`, run on a loop in a thread of their own; may be shared between threads.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from windlass.client import JOIN_TOKEN_LIFE, Client
from windlass.profile import Profile, find_profile
from windlass.quantities import format_exactly
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, JobId
from windlass_proto.model.secrets import Login, SecretStatus
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import JobState, LogStream
from windlass_proto.model.status import ClusterStatus, InstanceStatus, JobStatus, LogChunk, NodeStatus
from windlass_proto.model.storage import StorageProfile

T = TypeVar("T")


class BlockingClient:
    """One coordinator, seen by one user."""

    def __init__(self, profile: Profile) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="windlass-client", daemon=True)
        self._thread.start()
        self._client = self._run(_made(profile))

    @classmethod
    def open(cls, profile: Profile | None = None) -> Self:
        """A client of the profile given, else of the one found (WINDLASS_PROFILE, laptop mode)."""
        return cls(profile or find_profile())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the thread; calls after it fail."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobId:
        return self._run(self._client.submit(spec, idempotency_key=idempotency_key))

    def get(self, job_id: JobId) -> JobStatus:
        return self._run(self._client.get(job_id))

    def get_spec(self, job_id: JobId) -> JobSpec:
        return self._run(self._client.get_spec(job_id))

    def list(self, *, states: Sequence[JobState] = (), name_contains: str = "") -> Iterator[JobStatus]:
        return self._each(self._client.list(states=states, name_contains=name_contains))

    def instances(
        self, job_id: JobId, task: str = "", *, index: int | None = None, all_attempts: bool = False
    ) -> Iterator[InstanceStatus]:
        return self._each(self._client.instances(job_id, task, index=index, all_attempts=all_attempts))

    def stop(self, job_id: JobId) -> JobStatus:
        return self._run(self._client.stop(job_id))

    def restart(self, job_id: JobId, *, all_instances: bool = False) -> JobStatus:
        return self._run(self._client.restart(job_id, all_instances=all_instances))

    def delete(self, job_id: JobId, *, stop_first: bool = False) -> bool:
        return self._run(self._client.delete(job_id, stop_first=stop_first))

    def set_priority(self, job_id: JobId, priority: int) -> JobStatus:
        return self._run(self._client.set_priority(job_id, priority))

    def watch(self, job_id: JobId) -> Iterator[JobStatus]:
        return self._each(self._client.watch(job_id))

    def wait(self, job_id: JobId, *, timeout: timedelta | None = None) -> JobStatus:
        """Raises Unavailable when the job has not ended within `timeout`; the job goes on."""
        return self._run(_within(self._client.wait(job_id), timeout, job_id))

    def read_log(
        self,
        job_id: JobId,
        task: str,
        index: int = 0,
        *,
        stream: LogStream = LogStream.STDOUT,
        attempt: int = 0,
        offset: int = 0,
        limit: int = 0,
    ) -> Iterator[LogChunk]:
        """What is stored now. `attempt` 0 = the newest; a negative offset counts from the end."""
        return self._each(
            self._client.read_log(
                job_id, task, index, stream=stream, attempt=attempt, offset=offset, limit=limit
            )
        )

    def follow_log(
        self,
        job_id: JobId,
        task: str,
        index: int = 0,
        *,
        stream: LogStream = LogStream.STDOUT,
        attempt: int = 0,
        offset: int = 0,
    ) -> Iterator[LogChunk]:
        """From `offset` on, until the stream is complete."""
        return self._each(
            self._client.follow_log(job_id, task, index, stream=stream, attempt=attempt, offset=offset)
        )

    def drain_node(self, node: str, *, within: timedelta | None = None) -> NodeStatus:
        return self._run(self._client.drain_node(node, within=within))

    def resume_node(self, node: str) -> NodeStatus:
        return self._run(self._client.resume_node(node))

    def nodes(self, cluster: str = "", *, include_gone: bool = False) -> tuple[NodeStatus, ...]:
        return self._run(self._client.nodes(cluster, include_gone=include_gone))

    def clusters(self) -> tuple[ClusterStatus, ...]:
        return self._run(self._client.clusters())

    def create_cluster(self, name: str, *, description: str = "") -> ClusterStatus:
        return self._run(self._client.create_cluster(name, description=description))

    def delete_cluster(self, name: str) -> None:
        self._run(self._client.delete_cluster(name))

    def put_secret(self, name: str, value: StorageProfile | Login) -> SecretStatus:
        return self._run(self._client.put_secret(name, value))

    def secrets(self) -> tuple[SecretStatus, ...]:
        return self._run(self._client.secrets())

    def delete_secret(self, name: str) -> None:
        self._run(self._client.delete_secret(name))

    def create_join_token(
        self,
        cluster: ClusterName = DEFAULT_CLUSTER,
        *,
        uses: int = 1,
        valid_for: timedelta = JOIN_TOKEN_LIFE,
    ) -> tuple[str, datetime]:
        return self._run(self._client.create_join_token(cluster, uses=uses, valid_for=valid_for))

    def newest(self) -> JobStatus:
        """The job submitted last."""
        return self._run(self._client.newest())

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:  # also when the waiting thread is interrupted: the call must not go on unseen
            future.cancel()
            raise

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        try:
            while found := self._run(_next(items)):
                yield from found
        finally:
            if not self._loop.is_closed():
                self._run(_closed(items))


async def _made(profile: Profile) -> Client:
    return Client(profile)


async def _next(items: AsyncIterator[T]) -> tuple[T] | tuple[()]:
    """The next item, or nothing at the end."""
    async for item in items:
        return (item,)
    return ()


async def _closed(items: AsyncIterator[T]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


async def _within(call: Coroutine[Any, Any, T], timeout: timedelta | None, job_id: JobId) -> T:
    if timeout is None:
        return await call
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await call
    except TimeoutError as error:
        raise Unavailable(f"{job_id} has not ended within {format_exactly(timeout)}; it goes on") from error
