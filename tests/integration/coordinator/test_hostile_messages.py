"""Messages that no sane agent or user sends are refused, and hurt nobody else."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.transcript import SpokenAgent, exited, refs_of, started
from windlass.client import Client
from windlass_proto.model.ids import ClusterName, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import InstanceState, JobState
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import agent_pb2_grpc, clusters_pb2, clusters_pb2_grpc, jobs_pb2, jobs_pb2_grpc

HUGE = 2**64 - 1
HUGE_REF = wire.AttemptRef(task_key=HUGE, index=HUGE, attempt=2**32 - 1, fence=HUGE)
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
}


def a_job(agent: SpokenAgent, *, instances: int = 1) -> JobSpec:
    """In the agent's cluster."""
    task = TaskSpec(
        name=TaskName("task"),
        command=Argv(args=("true",)),
        instances=instances,
        cluster=ClusterName(agent.cluster),
    )
    return JobSpec(name="job", tasks=(task,))


async def outcome(coordinator: CoordinatorProcess, method: str, request: Message, credential: str) -> Any:
    """The reply or the status code."""
    async with coordinator.channel() as channel:
        stubs = (
            agent_pb2_grpc.AgentServiceStub(channel),
            jobs_pb2_grpc.JobServiceStub(channel),
            clusters_pb2_grpc.ClusterServiceStub(channel),
        )
        call = next(getattr(stub, method) for stub in stubs if hasattr(stub, method))
        metadata = (("authorization", f"Bearer {credential}"),)
        try:
            return await call(request, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as refused:
            return refused.code()


def with_huge_event(session: wire.SessionRef) -> wire.ReportRequest:
    event = exited(0)
    event.index, event.attempt, event.fence, event.seq = HUGE, 2**32 - 1, HUGE, 2**32 - 1
    return wire.ReportRequest(session=session, tasks=[wire.TaskEvents(task_key=HUGE, events=[event])])


async def test_huge_numbers_of_an_agent_are_refused(
    coordinator: CoordinatorProcess, agent: SpokenAgent, client: Client
) -> None:
    session = agent.session
    huge_facts = wire.NodeFacts(name="n", slots=2**32 - 1, cpu=float("nan"), memory_bytes=HUGE)
    requests = {
        "Poll": wire.PollRequest(session=session, poll_seq=HUGE, want=1, wait=Duration(seconds=0)),
        "Report": with_huge_event(session),
        "Heartbeat": wire.HeartbeatRequest(session=session, hb_seq=HUGE, ended=[HUGE_REF]),
        "Release": wire.ReleaseRequest(session=session, refs=[HUGE_REF]),
        "CommitOutputs": wire.CommitOutputsRequest(
            session=session, ref=HUGE_REF, manifest_digest="d" * 64, files=1, bytes=1
        ),
        "OpenSession": wire.OpenSessionRequest(
            node_id=agent.node_id, last_nonce=agent.nonce, facts=huge_facts
        ),
    }

    codes = {
        method: await outcome(coordinator, method, request, agent.credential)
        for method, request in requests.items()
    }

    assert {code for code in codes.values() if isinstance(code, grpc.StatusCode)} <= REFUSED
    assert {method: code for method, code in codes.items() if not isinstance(code, grpc.StatusCode)} == {
        "Release": wire.ReleaseReply(released=[False])
    }
    assert await client.submit(a_job(agent)), "others are served"


@pytest.mark.parametrize(
    ("field", "value"),
    [("manifest_digest", "D" * 64), ("manifest_digest", ""), ("files", HUGE), ("bytes", HUGE)],
)
async def test_an_odd_manifest_is_refused_by_field(
    coordinator: CoordinatorProcess, agent: SpokenAgent, field: str, value: object
) -> None:
    request = wire.CommitOutputsRequest(session=agent.session, manifest_digest="d" * 64)
    setattr(request, field, value)
    assert await outcome(coordinator, "CommitOutputs", request, agent.credential) is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


async def test_an_odd_poll_harms_nobody_elses_submit(
    coordinator: CoordinatorProcess, agent: SpokenAgent, client: Client
) -> None:
    poll = wire.PollRequest(session=agent.session, poll_seq=HUGE, want=2**32 - 1, wait=Duration(seconds=20))
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(outcome(coordinator, "Poll", poll, agent.credential))
        for _ in range(20):
            job_id = await client.submit(a_job(agent))
            await client.stop(job_id)

    assert polling.result() in REFUSED


async def test_a_poll_gets_no_more_than_a_message_can_hold(agent: SpokenAgent, client: Client) -> None:
    job_id = await client.submit(a_job(agent, instances=1_000_000))

    refs = await agent.poll(want=2**32 - 1)

    assert 0 < len(refs) <= 10_000
    await client.delete(job_id, stop_first=True)
    await agent.open_session()


async def test_an_impossible_duration_does_not_break_what_users_see(
    agent: SpokenAgent, client: Client
) -> None:
    job_id = await client.submit(a_job(agent))
    (ref,) = await agent.poll()
    await agent.report((ref, started()))
    await agent.report((ref, exited(0, ran_for_us=2**62)))

    (instance,) = [one async for one in client.instances(job_id)]
    assert instance.state is InstanceState.SUCCEEDED
    started_at = instance.attempts[0].started_at
    assert started_at is not None
    assert started_at >= instance.attempts[0].leased_at


async def test_an_impossible_duration_of_an_unannounced_start_does_not_either(
    agent: SpokenAgent, client: Client
) -> None:
    job_id = await client.submit(a_job(agent))
    (ref,) = await agent.poll()
    await agent.report((ref, exited(0, ran_for_us=2**62)))

    (instance,) = [one async for one in client.instances(job_id)]
    assert instance.attempts[0].started_at == instance.attempts[0].leased_at
    assert (await client.get(job_id)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("seconds", [-(2**63), -1, 0, 2**63 - 1])
async def test_impossible_waits_are_as_good_as_none_or_the_longest(
    coordinator: CoordinatorProcess, agent: SpokenAgent, client: Client, seconds: int
) -> None:
    job_id = await client.submit(a_job(agent))
    poll = wire.PollRequest(session=agent.session, poll_seq=1, want=1, wait=Duration(seconds=seconds))

    reply = await outcome(coordinator, "Poll", poll, agent.credential)

    assert isinstance(reply, wire.PollReply)
    assert len(list(refs_of(reply))) <= 1
    await client.delete(job_id, stop_first=True)
    await agent.open_session()


async def test_huge_numbers_of_a_user_are_refused(
    coordinator: CoordinatorProcess, agent: SpokenAgent, client: Client
) -> None:
    job_id = await client.submit(a_job(agent))
    requests: list[tuple[str, Message]] = [
        ("ListInstances", jobs_pb2.ListInstancesRequest(job_id=job_id, index=2**63 - 1)),
        ("ListInstances", jobs_pb2.ListInstancesRequest(job_id=job_id, index=-(2**63))),
        ("ListJobs", jobs_pb2.ListJobsRequest(states=[99])),  # type: ignore[list-item]  # on purpose
        ("UpdatePriority", jobs_pb2.UpdatePriorityRequest(job_id=job_id, priority=2**63 - 1)),
        ("CreateJoinToken", clusters_pb2.CreateJoinTokenRequest(uses=2**31 - 1)),
        ("CreateJoinToken", clusters_pb2.CreateJoinTokenRequest(valid_for=Duration(seconds=2**63 - 1))),
        ("CreateJoinToken", clusters_pb2.CreateJoinTokenRequest(valid_for=Duration(seconds=-1))),
    ]

    outcomes = [await outcome(coordinator, *request, coordinator.admin_token) for request in requests]

    assert outcomes[:2] == [jobs_pb2.ListInstancesReply()] * 2
    assert set(outcomes[2:]) == {grpc.StatusCode.INVALID_ARGUMENT}
    await client.stop(job_id)


async def test_a_repeated_poll_tells_all_that_it_has_leased_while_more_work_comes_in(
    coordinator: CoordinatorProcess, agent: SpokenAgent, client: Client
) -> None:
    """Its answer is looked up, and a commit that comes between may serve it once more."""
    for _ in range(25):
        first = await client.submit(a_job(agent))
        request = agent.poll_request(want=50)
        await outcome(coordinator, "Poll", request, agent.credential)
        reply, *jobs = await asyncio.gather(
            outcome(coordinator, "Poll", request, agent.credential),
            *(client.submit(a_job(agent)) for _ in range(8)),
        )
        nodes = await client.nodes()
        (leased,) = [node.live_attempts for node in nodes if node.node_id == agent.node_id]
        assert len(list(refs_of(reply))) == leased
        for job_id in [first, *jobs]:
            await client.delete(job_id, stop_first=True)
        await agent.open_session()
