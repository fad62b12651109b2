"""Bad input in job files, specifications and names (F01-F06, F17)."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor as F

from tests.faults.scenarios import scenario
from tests.support.coordinator_process import environment
from tests.support.raw_calls import raw_calls
from tests.support.world import World
from windlass_proto import convert
from windlass_proto.errors import InvalidJob, InvalidRequest, WindlassError
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState
from windlass_proto.v1 import jobs_pb2

SUBMIT = "/windlass.v1.JobService/SubmitJob"
SOON_S = 10.0
"""A refusal that takes longer than this has done something with its input."""
GROWTH = 50 << 20


def wire_request(spec: JobSpec, **more: str) -> bytes:
    return jobs_pb2.SubmitJobRequest(spec=convert.job_spec_to_wire(spec), **more).SerializeToString()


def a_task(name: str = "t", **more: object) -> TaskSpec:
    return TaskSpec(name=TaskName(name), command=Argv(args=("true",)), **more)  # type: ignore[arg-type]  # by name


async def refusal(world: World, spec: JobSpec) -> str:
    """What the coordinator itself says of a job that no client has looked at."""
    async with raw_calls(world) as calls, asyncio.timeout(SOON_S):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls.ask(SUBMIT, wire_request(spec))
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return refused.value.details() or ""


@scenario("F01")
async def test_f01_huge_jobs_are_refused_soon_with_the_limit_named_and_take_no_memory(world: World) -> None:
    await world.start(agents=0)
    await world.submit("true")
    before = world.coordinator.usage().memory_bytes
    absurd = JobSpec(name="job", tasks=(a_task(instances=10**9),))
    assert "must be <= 10000000" in await refusal(world, absurd)
    wide = JobSpec(name="job", tasks=tuple(a_task(f"t{number}") for number in range(20_000)))
    assert "must be at most 10000" in await refusal(world, wide)
    long = JobSpec(name="job", tasks=(a_task(env={"A": "x" * 3_500_000}),))
    assert "100000 bytes" in await refusal(world, long)
    heavy = JobSpec(name="job", tasks=(a_task(env={"A": "x" * (50 << 20)}),))
    assert await refusal(world, heavy)  # the message as a whole
    many = b"\x2a\x03\x0a\x01t" * 1_000_000  # a million tasks called t
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with raw_calls(world) as calls:
            await calls.ask(SUBMIT, b"\x0a" + _varint(len(many)) + many)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.coordinator.usage().memory_bytes < before + GROWTH
    assert len([job async for job in world.client.list()]) == 1


@scenario("F01")
async def test_f01_deep_and_huge_job_files_are_refused_where_they_are_read(world: World) -> None:
    await world.start(agents=0)
    deep_json, deep_yaml = world.directory / "deep.json", world.directory / "deep.yaml"
    deep_json.write_text('{"a":' * 10_000 + "1" + "}" * 10_000)
    deep_yaml.write_text("a: " + "[" * 10_000 + "]" * 10_000)
    huge = world.directory / "huge.json"
    huge.write_text(json.dumps({"name": "job", "tasks": {"t": {"shell": "x" * (50 << 20)}}}))
    laughs = world.directory / "laughs.yaml"
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    laughs.write_text("\n".join(["a0: &a0 x", *levels, "name: job", "tasks: {t: {command: *a29}}"]))
    for file, told in (
        (deep_json, "deeper"),
        (deep_yaml, "deeper"),
        (huge, "100000 bytes"),
        (laughs, "must"),
    ):
        async with asyncio.timeout(60):
            code, said = await _submit_file(world, str(file))
        assert (code, "Traceback" in said, told in said) == (1, False, True), said[-2000:]


def _varint(number: int) -> bytes:
    """As a length stands in a message."""
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


async def _submit_file(world: World, path: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windlass.cli.main", "submit", "--file", path),
        env=environment()
        | {
            "WINDLASS_COORDINATOR": world.coordinator.address,
            "WINDLASS_TOKEN_FILE": str(world.coordinator.token_file),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@scenario("F02")
async def test_f02_graphs_that_cannot_run_are_told_precisely(world: World) -> None:
    await world.start(agents=0)
    t = TaskName

    async def told(*tasks: TaskSpec) -> str:
        spec = JobSpec(name="job", tasks=tasks)
        with pytest.raises(InvalidJob) as by_client:
            await world.client.submit(spec)
        by_coordinator = await refusal(world, spec)
        assert str(by_client.value) in by_coordinator
        return by_coordinator

    assert "tasks: must hold at least one task" in await told()
    assert "tasks.a.after: a cannot come after itself" in await told(a_task("a", after=(t("a"),)))
    assert "form a cycle: a -> b -> a" in await told(
        a_task("a", after=(t("b"),)), a_task("b", after=(t("a"),))
    )
    unknown = await told(a_task("count"), a_task("merge", after=(t("cuont"),)))
    assert "tasks.merge.after: there is no task 'cuont'; did you mean count?" in unknown
    assert "tasks[1].name: must be unique" in await told(a_task("a"), a_task("a"))


@scenario("F03")
async def test_f03_edge_numbers_and_empty_texts_are_told_by_field(world: World) -> None:
    """Each number field of the wire with each edge of its type, each text field empty."""
    await world.start(agents=0)
    good = jobs_pb2.SubmitJobRequest(spec=convert.job_spec_to_wire(JobSpec(name="job", tasks=(a_task(),))))
    accepted = []
    answers: dict[str, tuple[grpc.StatusCode, bool]] = {}
    async with raw_calls(world) as calls:
        for make_wrong, field in _wrong_fields(good):
            request = jobs_pb2.SubmitJobRequest()
            request.CopyFrom(good)
            make_wrong(request)
            try:
                reply = await calls.ask(SUBMIT, request.SerializeToString())
            except grpc.aio.AioRpcError as error:
                answers[field] = (error.code(), bool(error.details()))
            else:
                accepted.append(jobs_pb2.SubmitJobReply.FromString(reply).job_id)
    odd = {field: said for field, said in answers.items() if said != (grpc.StatusCode.INVALID_ARGUMENT, True)}
    assert odd == {}
    for job_id in accepted:
        assert (await world.client.get(JobId(job_id))).state is JobState.WAITING


def _wrong_fields(
    good: jobs_pb2.SubmitJobRequest,
) -> Iterator[tuple[Callable[[jobs_pb2.SubmitJobRequest], None], str]]:
    task = good.spec.tasks[0]
    for place, message in (("spec", good.spec), ("task", task), ("resources", task.resources)):
        for field in message.DESCRIPTOR.fields:
            if field.is_repeated or field.message_type is not None:
                continue
            for value in _edges(field.cpp_type):

                def change(
                    request: jobs_pb2.SubmitJobRequest,
                    place: str = place,
                    name: str = field.name,
                    v: object = value,
                ) -> None:
                    target = {
                        "spec": request.spec,
                        "task": request.spec.tasks[0],
                        "resources": request.spec.tasks[0].resources,
                    }[place]
                    setattr(target, name, v)

                yield change, f"{place}.{field.name} = {value!r}"


def _edges(cpp_type: int) -> list[object]:
    match cpp_type:
        case F.CPPTYPE_INT32:
            return [0, -1, -(2**31), 2**31 - 1]
        case F.CPPTYPE_INT64:
            return [0, -1, -(2**63), 2**63 - 1]
        case F.CPPTYPE_UINT32:
            return [0, 2**32 - 1]
        case F.CPPTYPE_UINT64:
            return [0, 2**63, 2**64 - 1]
        case F.CPPTYPE_DOUBLE | F.CPPTYPE_FLOAT:
            return [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e308]
        case F.CPPTYPE_STRING:
            return ["", " ", "\0", "\n", "x" * 10_000]
        case F.CPPTYPE_ENUM:
            return [0, 99]
    return []


HOSTILE = [
    "a/b",
    "../../etc/passwd",
    "..",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "x" * 10_000,
    "",
    ".",
    "-rf",
    "a b",
    "é",
]


@scenario("F04")
async def test_f04_hostile_names_are_refused_and_free_texts_are_inert(world: World) -> None:
    await world.start()
    for name in HOSTILE:
        await refusal(world, JobSpec(name="job", tasks=(a_task(name),)))
        if name:
            await refusal(world, JobSpec(name="job", tasks=(replace(a_task(), cluster=name),)))  # type: ignore[arg-type]  # a text
    refused = []
    for name in HOSTILE:
        try:
            job = await world.client.submit(replace(world.job("true"), name=name))
        except InvalidRequest:
            refused.append(name)
            continue
        assert (await world.wait(job)).name == name
        assert [found.name async for found in world.client.list(name_contains=name)].count(name) == 1
    assert set(refused) >= {"", "a\0b", "a\nb", "x" * 10_000, "a\u202eb"}
    for name in HOSTILE:
        with pytest.raises(WindlassError):
            await world.client.create_cluster(name)
    placed = [path for path in world.directory.rglob("*") if "passwd" in path.name or "\u202e" in path.name]
    assert placed == []


SHELL_WORDS = [
    "a;b",
    "$(touch X)",
    "`touch X`",
    "a && touch X",
    '"q"',
    "'s'",
    "*",
    "~",
    "$HOME",
    "|",
    ">X",
    "\\",
    "",
]


@scenario("F05")
async def test_f05_an_argument_list_reaches_the_program_as_it_is_and_starts_nothing_else(
    world: World,
) -> None:
    await world.start()
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    job = await world.submit(world.task(Argv(args=(sys.executable, "-c", show, *SHELL_WORDS, "é\n\t"))))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert json.loads(await world.log(job)) == [*SHELL_WORDS, "é\n\t"]
    assert not list(world.directory.rglob("X"))


DANGEROUS = {
    "LD_PRELOAD": "/nonexistent/evil.so",
    "LD_LIBRARY_PATH": "/nonexistent",
    "PYTHONPATH": "/nonexistent",
    "PYTHONSTARTUP": "/nonexistent/evil.py",
    "PYTHONHOME": "",
    "BASH_ENV": "/nonexistent/evil.sh",
    "ENV": "/nonexistent/evil.sh",
    "IFS": "/",
    "PATH": "/usr/bin:/bin",
}


@scenario("F06")
async def test_f06_dangerous_variables_reach_the_command_and_nobody_else(world: World) -> None:
    await world.start()
    (agent,) = world.agents
    await world.wait(await world.submit("true"))
    keepers = agent.keepers()
    job = await world.submit(world.task(Argv(args=("/usr/bin/env",)), env=DANGEROUS))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    shown = dict(line.split("=", 1) for line in (await world.log(job)).decode().splitlines() if "=" in line)
    assert {name: shown.get(name) for name in DANGEROUS} == DANGEROUS
    assert agent.keepers() == keepers
    for pid in (agent.pid, *keepers):
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"evil" not in environ
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


@scenario("F06")
async def test_f06_reserved_and_malformed_variables_are_refused(world: World) -> None:
    await world.start(agents=0)
    for name, value in [
        ("WINDLASS_JOB_ID", "x"),
        ("WINDLASS_FENCE", "1"),
        ("A=B", "x"),
        ("A\nB", "x"),
        ("A\0B", "x"),
        ("", "x"),
        ("1A", "x"),
        ("A", "x\0y"),
    ]:
        said = await refusal(world, JobSpec(name="job", tasks=(a_task(env={name: value}),)))
        assert "tasks.t.env" in said, (name, said)


@scenario("F17")
async def test_f17_extreme_timeouts_retries_and_priorities_are_refused_or_mean_what_they_say(
    world: World,
) -> None:
    await world.start()
    for timeout in (timedelta(0), timedelta(seconds=-1), timedelta(days=3651), timedelta.max):
        assert "tasks.t.timeout" in await refusal(
            world, JobSpec(name="job", tasks=(a_task(timeout=timeout),))
        )
    for retries in (-1, 10**6, 2**31 - 1):
        assert "tasks.t.retries" in await refusal(
            world, JobSpec(name="job", tasks=(a_task(max_retries=retries),))
        )
    for priority in (10**6 + 1, -(10**6) - 1, 2**31 - 1):
        assert "priority" in await refusal(world, JobSpec(name="job", tasks=(a_task(),), priority=priority))
    low = await world.submit(world.task("true", max_retries=1000), priority=-(10**6))
    high = await world.submit(world.task("true", timeout=timedelta(days=365)), priority=10**6)
    assert {(await world.wait(job)).state for job in (low, high)} == {JobState.SUCCEEDED}
    short = await world.submit(world.task("sleep 60", timeout=timedelta(seconds=1)))
    assert (await world.wait(short)).state is JobState.FAILED
    (attempt,) = await world.attempts(short)
    assert attempt.failure == "TIMEOUT"
