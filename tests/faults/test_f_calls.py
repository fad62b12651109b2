"""Calls that no client of ours would make (F12-F16)."""

import asyncio
import random

import grpc.aio
import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support.raw_calls import methods, raw_calls
from tests.support.world import World
from windlass_proto import convert
from windlass_proto.errors import Conflict, InvalidRequest, NotFound, WindlassError
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState
from windlass_proto.v1 import agent_pb2, jobs_pb2

JOBS = "/windlass.v1.JobService/"
CALM = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""What bad input may be answered with. INTERNAL or UNKNOWN would be a crash of ours."""


@scenario("F12")
async def test_f12_webhooks_that_point_inwards(world: World) -> None:
    raise NotRun("there are no webhooks yet: they come with the event sinks")


@scenario("F13", limit_s=3600)
async def test_f13_noise_at_every_call_is_refused_and_the_process_lives(
    world: World, profile: FaultProfile
) -> None:
    """Random bytes, and good messages with some of their bytes changed, as an admin and as a node."""
    await world.start()
    job = await world.submit("true")
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    (agent,) = world.agents
    chance = random.Random(13)
    good = _good_messages(job, agent.node_id)
    wild: dict[str, set[grpc.StatusCode]] = {}
    for token in ("", agent.identity["credential"]):
        async with raw_calls(world, token=token) as calls:
            for path, *streams in methods():
                seen = wild.setdefault(path, set())
                for _ in range(profile.of(quick=6, full=2_000)):
                    request = _noise(chance, good)
                    seen.add(await calls.code_of(path, request, streams=(streams[0], streams[1])))
    assert {path: seen - CALM for path, seen in wild.items() if seen - CALM} == {}
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


def _good_messages(job: JobId, node_id: str) -> list[bytes]:
    task = TaskSpec(name="t", command=Argv(args=("true",)))  # type: ignore[arg-type]  # a text
    spec = convert.job_spec_to_wire(JobSpec(name="job", tasks=(task,)))
    session = agent_pb2.SessionRef(node_id=node_id, node_epoch=1, nonce="x")
    ref = agent_pb2.AttemptRef(task_key=1, index=0, attempt=1, fence=1)
    event = agent_pb2.AttemptEvent(attempt=1, fence=1, seq=3, exited=agent_pb2.Exited(code=0))
    return [
        jobs_pb2.SubmitJobRequest(spec=spec, idempotency_key="key").SerializeToString(),
        jobs_pb2.GetJobRequest(job_id=job).SerializeToString(),
        agent_pb2.PollRequest(session=session, poll_seq=1, want=1).SerializeToString(),
        agent_pb2.ReportRequest(
            session=session, tasks=[agent_pb2.TaskEvents(task_key=1, events=[event])]
        ).SerializeToString(),
        agent_pb2.AppendLogRequest(session=session, ref=ref, data=b"x", crc32=1).SerializeToString(),
        agent_pb2.OpenSessionRequest(
            node_id=node_id, inventory=[agent_pb2.InventoryItem(ref=ref, phase=3)]
        ).SerializeToString(),
    ]


def _noise(chance: random.Random, good: list[bytes]) -> bytes:
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(80))
    data = bytearray(chance.choice(good))
    for _ in range(chance.randrange(1, 5)):
        match chance.randrange(3):
            case 0 if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 1 if data:
                del data[chance.randrange(len(data)) :]
            case _:
                place = chance.randrange(len(data) + 1)
                data[place:place] = chance.randbytes(chance.randrange(12))
    return bytes(data)


FILTERS = ["%", "_", "'", '"', "';--", "' OR '1'='1", "\\", "%%' UNION SELECT 1--", "*", "[a-z]", "\0"]


@scenario("F14")
async def test_f14_filters_are_texts_and_page_tokens_of_others_are_refused(world: World) -> None:
    await world.start(agents=0)
    names = ["plain", "with % in it", "with _ in it", "with ' in it", 'with " in it', "with \\ in it"]
    for name in names:
        await world.client.submit(world.job("true", name=name))
    for text in FILTERS:
        try:
            found = {job.name async for job in world.client.list(name_contains=text)}
        except InvalidRequest:
            continue
        assert found == {name for name in names if text in name}, text
    async with raw_calls(world) as calls:
        first = jobs_pb2.ListJobsReply.FromString(
            await calls.ask(JOBS + "ListJobs", jobs_pb2.ListJobsRequest(page_size=2).SerializeToString())
        )
        forged = ["x", "W10=", "WzFd", "Wy0xXQ==", "WzEsMiwzLDRd", first.next_page_token[:-2], "'", "\0"]
        for token in forged:
            request = jobs_pb2.ListJobsRequest(page_size=2, page_token=token)
            code = await calls.code_of(JOBS + "ListJobs", request.SerializeToString(), streams=(False, False))
            assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK), token
        for size in (-1, 1001, 2**31 - 1):
            request = jobs_pb2.ListJobsRequest(page_size=size)
            code = await calls.code_of(JOBS + "ListJobs", request.SerializeToString(), streams=(False, False))
            assert code is grpc.StatusCode.INVALID_ARGUMENT, size
    assert len([job async for job in world.client.list()]) == len(names)


@scenario("F15")
async def test_f15_one_key_means_one_job(world: World) -> None:
    await world.start(agents=0)
    first = await world.submit(world.task("true"), key="key")
    with pytest.raises(Conflict):
        await world.submit(world.task("false"), key="key")
    assert await world.submit(world.task("true"), key="key") == first
    assert await world.submit(world.task("false"), key="another") != first
    assert len([job async for job in world.client.list()]) == 2


@scenario("F16")
async def test_f16_verbs_in_the_wrong_order_have_defined_answers_and_damage_nothing(world: World) -> None:
    await world.start()
    client = world.client
    nobody = JobId("job-" + "0" * 32)
    for verb in (client.get, client.get_spec, client.stop, client.restart, client.delete):
        with pytest.raises(NotFound):
            await verb(nobody)
    gate = world.gate()
    running = await world.submit(world.task(gate.wait))
    await world.until_started(running)
    with pytest.raises(Conflict):
        await client.restart(running)
    with pytest.raises(Conflict):
        await client.delete(running)
    assert (await client.get(running)).state is JobState.RUNNING
    gate.open()
    assert (await world.wait(running)).state is JobState.SUCCEEDED
    with pytest.raises(Conflict):
        await client.stop(running)
    with pytest.raises(Conflict):
        await client.restart(running)  # there is nothing of it that has not succeeded
    assert await client.delete(running)
    for late in (client.delete, client.stop, client.restart, client.get):
        with pytest.raises(WindlassError) as refused:
            await late(running)
        assert isinstance(refused.value, NotFound | Conflict)
    world.look()


@scenario("F16", quick=False)
async def test_f16_verbs_at_the_same_moment_leave_one_outcome(world: World, profile: FaultProfile) -> None:
    """Stop, delete, restart and priority all at once, again and again: each answers, and the job is whole."""
    await world.start(agents=0)
    client = world.client

    async def attempt(verb: object, *args: object, **more: object) -> str:
        try:
            await verb(*args, **more)  # type: ignore[operator]  # a method of the client
        except (Conflict, NotFound) as refused:
            return type(refused).__name__
        return "done"

    for _ in range(profile.of(quick=10, full=200)):
        job = await world.submit(world.task("true", instances=3))
        answers = await asyncio.gather(
            attempt(client.stop, job),
            attempt(client.restart, job),
            attempt(client.delete, job, stop_first=True),
            attempt(client.set_priority, job, 5),
            attempt(client.delete, job),
        )
        assert "done" in answers
        world.look()
