"""What users may rely on, through the SDK and a real coordinator process."""

import asyncio
import base64
import json
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.transcript import SpokenAgent, exited, started
from windlass.client import Client
from windlass_proto.errors import Conflict, InvalidJob, InvalidRequest, NotFound
from windlass_proto.model.ids import ClusterName, JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, ShellLine, TaskSpec
from windlass_proto.model.states import JobState, LogState, TaskState
from windlass_proto.v1 import jobs_pb2, jobs_pb2_grpc

UNKNOWN = JobId("job-" + "0" * 32)
DEADLINE_S = 20.0


def a_task(
    name: str = "task", agent: SpokenAgent | None = None, *, after: tuple[str, ...] = (), **more: Any
) -> TaskSpec:
    """In the agent's cluster, where there is one that shall run it."""
    parents = tuple(TaskName(parent) for parent in after)
    if agent is not None:
        more["cluster"] = agent.cluster
    return TaskSpec(name=TaskName(name), command=Argv(args=("true",)), after=parents, **more)


def a_job(*tasks: TaskSpec, name: str = "job", **more: Any) -> JobSpec:
    return JobSpec(name=name, tasks=tasks or (a_task(),), **more)


async def test_all_problems_of_a_job_are_told_at_once_and_nothing_is_stored(client: Client) -> None:
    spec = a_job(
        a_task("a", instances=0, after=("b",)),
        a_task("b", after=("a",), max_retries=-1),
        TaskSpec(name=TaskName("c"), command=ShellLine(line=""), after=(TaskName("nobody"),)),
        name="broken",
    )

    with pytest.raises(InvalidJob) as refused:
        await client.submit(spec)

    assert [str(problem) for problem in refused.value.problems] == [
        "tasks.a.instances: must be >= 1 (is 0)",
        "tasks.b.retries: must be >= 0 (is -1)",
        "tasks.c.shell: must not be empty",
        "tasks.c.after: there is no task 'nobody'",
        "tasks: form a cycle: a -> b -> a; take one of these steps away",
    ]
    assert [job async for job in client.list(name_contains="broken")] == []


async def test_an_unknown_cluster_is_a_problem_of_the_job(client: Client) -> None:
    with pytest.raises(InvalidJob) as refused:
        await client.submit(a_job(a_task(cluster=ClusterName("defualt"))))

    assert [str(problem) for problem in refused.value.problems] == [
        "tasks.task.cluster: there is no cluster 'defualt'; did you mean 'default'?"
    ]


async def test_a_submit_that_is_repeated_is_one_job(client: Client) -> None:
    jobs = await asyncio.gather(*(client.submit(a_job(), idempotency_key="same") for _ in range(20)))

    assert len(set(jobs)) == 1
    with pytest.raises(Conflict, match="'same' was used for job"):
        await client.submit(a_job(name="other"), idempotency_key="same")


async def test_whatever_is_asked_of_an_unknown_job_has_one_answer(client: Client) -> None:
    async def drained(stream: Any) -> None:
        async with aclosing(stream):
            async for _ in stream:
                pass

    calls = [
        client.get(UNKNOWN),
        client.get_spec(UNKNOWN),
        client.stop(UNKNOWN),
        client.restart(UNKNOWN),
        client.delete(UNKNOWN),
        client.set_priority(UNKNOWN, 1),
        drained(client.instances(UNKNOWN)),
        drained(client.watch(UNKNOWN)),
        drained(client.read_log(UNKNOWN, "task")),
    ]

    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert {(type(answer), str(answer)) for answer in answers} == {(NotFound, f"there is no job {UNKNOWN}")}


async def test_jobs_are_listed_newest_first_page_by_page(client: Client) -> None:
    jobs = [await client.submit(a_job(name=f"paged-{number}")) for number in range(5)]
    await client.stop(jobs[2])

    listed = [job async for job in client.list(name_contains="paged-", page_size=2)]
    waiting = [job async for job in client.list(name_contains="paged-", states=[JobState.WAITING])]

    assert [job.job_id for job in listed] == jobs[::-1]
    assert [job.job_id for job in waiting] == [jobs[n] for n in (4, 3, 1, 0)]
    assert all(job.tasks == () for job in listed)


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "%%%",
        base64.urlsafe_b64encode(b"[1, 2]").decode(),
        base64.urlsafe_b64encode(b"[-1]").decode(),
        base64.urlsafe_b64encode(json.dumps([2**70]).encode()).decode(),
        base64.urlsafe_b64encode(b'["1"]').decode(),
        base64.urlsafe_b64encode(b"[true]").decode(),
        base64.urlsafe_b64encode(b"[" * 5000).decode(),
        "é",
    ],
)
async def test_a_page_token_that_nobody_gave_is_refused(coordinator: CoordinatorProcess, token: str) -> None:
    async with coordinator.channel() as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        metadata = (("authorization", f"Bearer {coordinator.admin_token}"),)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListJobs(jobs_pb2.ListJobsRequest(page_token=token), metadata=metadata, timeout=10)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token: is not one that this coordinator gave" in str(refused.value.details())


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_has_a_largest_size(client: Client, size: int) -> None:
    with pytest.raises(InvalidRequest, match="page_size: must be between 1 and 1000"):
        [job async for job in client.list(page_size=size)]


async def test_a_watch_tells_each_state_up_to_the_end(client: Client, agent: SpokenAgent) -> None:
    job_id = await client.submit(a_job(a_task("a", agent), a_task("b", agent, after=("a",))))
    seen: list[tuple[JobState, TaskState, TaskState]] = []
    told = asyncio.Event()

    async def watch() -> None:
        async with aclosing(client.watch(job_id)) as statuses:
            async for status in statuses:
                seen.append((status.state, status.tasks[0].state, status.tasks[1].state))
                told.set()

    async def has_seen(state: tuple[JobState, TaskState, TaskState]) -> None:
        while state not in seen:
            told.clear()
            await told.wait()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(watch())
        await has_seen((JobState.WAITING, TaskState.READY, TaskState.WAITING))
        (ref,) = await agent.poll()
        await has_seen((JobState.RUNNING, TaskState.RUNNING, TaskState.WAITING))
        await agent.report((ref, exited(0)))
        await has_seen((JobState.RUNNING, TaskState.SUCCEEDED, TaskState.READY))
        (ref,) = await agent.poll()
        await agent.report((ref, exited(0)))

    assert seen[-1] == (JobState.SUCCEEDED, TaskState.SUCCEEDED, TaskState.SUCCEEDED)


async def test_instances_are_listed_with_their_attempts(client: Client, agent: SpokenAgent) -> None:
    job_id = await client.submit(a_job(a_task("task", agent, instances=3), fail_on_instance_failure=False))
    first, second = await agent.poll(want=2)
    await agent.report((first, exited(0, stdout_end=3)), (second, exited(7)))

    listed = [instance async for instance in client.instances(job_id, page_size=1)]

    assert [(i.index, i.state, i.attempts[0].exit_code, i.attempts[0].stdout_bytes) for i in listed] == [
        (0, "SUCCEEDED", 0, 3),
        (1, "FAILED", 7, 0),
    ]
    assert {instance.attempts[0].node_id for instance in listed} == {agent.node_id}
    with pytest.raises(NotFound, match="there is no task 'other'"):
        [instance async for instance in client.instances(job_id, "other")]
    await client.stop(job_id)


async def test_the_log_of_an_instance_that_has_not_started_is_empty_and_open(client: Client) -> None:
    job_id = await client.submit(a_job(a_task(instances=2)))

    chunks = [chunk async for chunk in client.read_log(job_id, "task", 1)]

    assert [(chunk.data, chunk.state) for chunk in chunks] == [(b"", LogState.STREAMING)]
    await client.stop(job_id)


async def test_the_log_of_an_instance_that_will_never_start_is_empty_and_complete(client: Client) -> None:
    job_id = await client.submit(a_job(a_task(instances=2)))
    await client.stop(job_id)

    read = [chunk async for chunk in client.read_log(job_id, "task", 1)]
    followed = [chunk async for chunk in client.follow_log(job_id, "task", 1)]

    assert [(chunk.data, chunk.state) for chunk in read + followed] == [(b"", LogState.COMPLETE)] * 2


async def test_a_follower_waits_for_an_instance_to_start_and_to_end(
    client: Client, agent: SpokenAgent
) -> None:
    job_id = await client.submit(a_job(a_task("task", agent)))

    async def follow() -> list[tuple[bytes, LogState | None]]:
        return [(chunk.data, chunk.state) async for chunk in client.follow_log(job_id, "task")]

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        (ref,) = await agent.poll()
        await agent.report((ref, started()))
        await agent.report((ref, exited(0)))

    assert following.result() == [(b"", LogState.COMPLETE)]


async def test_what_has_no_log_is_not_found(client: Client) -> None:
    job_id = await client.submit(a_job(a_task(instances=2)))
    for task, index, attempt in [("other", 0, 0), ("task", 2, 0), ("task", 0, 1)]:
        with pytest.raises(NotFound, match="there is no"):
            [chunk async for chunk in client.read_log(job_id, task, index, attempt=attempt)]
    await client.stop(job_id)


async def test_a_job_is_stopped_restarted_and_deleted(client: Client) -> None:
    job_id = await client.submit(a_job())
    assert (await client.stop(job_id)).state is JobState.STOPPED
    restarted = await client.restart(job_id)
    assert (restarted.state, restarted.generation) == (JobState.WAITING, 2)
    with pytest.raises(Conflict, match="stop it first"):
        await client.delete(job_id)

    assert await client.delete(job_id, stop_first=True)

    with pytest.raises(NotFound, match=f"there is no job {job_id}"):
        await client.get(job_id)


async def test_a_priority_has_bounds(client: Client) -> None:
    job_id = await client.submit(a_job())
    assert (await client.set_priority(job_id, -5)).priority == -5

    with pytest.raises(InvalidRequest, match="priority: must be"):
        await client.set_priority(job_id, 2_000_000)
    await client.stop(job_id)


async def test_a_cluster_is_made_joined_and_deleted(client: Client) -> None:
    await client.create_cluster("spare", description="for later")
    with pytest.raises(Conflict, match="there is a cluster 'spare' already"):
        await client.create_cluster("spare")
    token, _ = await client.create_join_token(ClusterName("spare"), uses=2, valid_for=timedelta(minutes=1))
    assert token.startswith("wlj_")

    await client.delete_cluster("spare")

    assert "spare" not in [cluster.name for cluster in await client.clusters()]
    for name in ("spare", "spare/2"):
        with pytest.raises(NotFound, match="there is no cluster"):
            await client.create_join_token(ClusterName(name))
