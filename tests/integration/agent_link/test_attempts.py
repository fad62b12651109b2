"""What a command finds on its node, and what becomes of what it leaves there."""

import asyncio
import io
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from tests.support.agent_system import AgentUnderTest, SystemUnderTest, a_job, argv, until
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.specs import InputMapping, OutputMapping
from windlass_proto.model.states import AttemptState, JobState, LogStream

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def node(system: SystemUnderTest) -> AsyncIterator[AgentUnderTest]:
    yield await system.start_agent("attempts", slots=2)


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("node")]


def a_package(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


async def test_a_package_inputs_and_outputs_meet_in_the_work_directory(system: SystemUnderTest) -> None:
    system.s3.put("bucket/job/program.tar.gz", a_package(**{"join.sh": "cat data/a data/b > out/joined"}))
    system.s3.put("bucket/job/in/a", "left ")
    system.s3.put("bucket/job/in/b", "right")
    ended = await system.run(
        "attempts",
        argv("sh", "join.sh"),
        package="oss://bucket/job/program.tar.gz",
        inputs=(InputMapping(source="oss://bucket/job/in/", destination="data"),),
        outputs=(OutputMapping(source="out", destination="oss://bucket/job/out/"),),
    )
    assert ended.state is JobState.SUCCEEDED, ended
    assert system.s3.get("bucket/job/out/joined") == b"left right"


async def test_stdout_and_stderr_become_objects_with_the_names_they_always_had(
    system: SystemUnderTest,
) -> None:
    ended = await system.run(
        "attempts",
        "echo out $WINDLASS_INDEX; echo err >&2",
        instances=2,
        stdout="oss://bucket/logs/",
        stderr="oss://bucket/logs",
    )
    assert ended.state is JobState.SUCCEEDED
    for index in (0, 1):
        assert system.s3.get(f"bucket/logs/stdout.{ended.job_id}.t.{index}") == f"out {index}\n".encode()
        assert system.s3.get(f"bucket/logs/stderr.{ended.job_id}.t.{index}") == b"err\n"


async def test_a_failed_commands_results_are_uploaded_too(system: SystemUnderTest) -> None:
    ended = await system.run(
        "attempts",
        "echo half > out/half; echo sorry; exit 3",
        stdout="oss://bucket/failed/",
        outputs=(OutputMapping(source="out", destination="oss://bucket/failed/"),),
    )
    assert (ended.state, ended.instances[0].attempts[-1].exit_code) == (JobState.FAILED, 3)
    assert system.s3.get("bucket/failed/half") == b"half\n"
    assert system.s3.get(f"bucket/failed/stdout.{ended.job_id}.t.0") == b"sorry\n"


async def test_results_that_cannot_be_uploaded_fail_the_attempt(system: SystemUnderTest) -> None:
    ended = await system.run(
        "attempts", "true", stdout="oss://no-such-bucket/logs/", upload_timeout=timedelta(seconds=2)
    )
    (attempt,) = ended.instances[0].attempts
    assert (ended.state, attempt.failure) == (JobState.FAILED, FailureKind.OUTPUT)
    assert "NoSuchBucket" in attempt.reason
    assert "not done within 2 s (upload_timeout)" in attempt.reason


async def test_an_agent_that_was_killed_goes_on_with_the_clock_of_an_upload(system: SystemUnderTest) -> None:
    agent = await system.start_agent("same-clock")
    spec = a_job("same-clock", "true", stdout="oss://no-such-bucket/logs/", upload_timeout=timedelta(hours=1))
    async with system.client() as client:
        job_id = await client.submit(spec)

        async def is_written() -> bool:
            return any((agent.state / "attempts").glob("*/phases.json"))

        await until(is_written)
        agent.end(signal.SIGKILL)
        (record,) = (agent.state / "attempts").glob("*/phases.json")
        phases = json.loads(record.read_text())
        phases["phases"]["upload"]["since_s"] -= 3_600  # as if the hour were over
        record.write_text(json.dumps(phases))
        agent.start_again()
        async with asyncio.timeout(60):
            await client.wait(job_id)
        (instance,) = [one async for one in client.instances(job_id, all_attempts=True)]

    assert instance.attempts[-1].failure is FailureKind.OUTPUT
    assert instance.attempts[-1].reason.startswith("upload: not done within 1 h (upload_timeout)")


async def test_a_stop_ends_an_upload_that_is_tried_again_and_again(system: SystemUnderTest) -> None:
    outputs = (OutputMapping(source="out", destination="oss://no-such-bucket/out/"),)
    async with system.client() as client:
        job_id = await client.submit(a_job("attempts", "echo a > out/a", outputs=outputs))

        async def is_finalizing() -> bool:
            found = [one async for one in client.instances(job_id)]
            return bool(found) and found[0].attempts[-1].state is AttemptState.FINALIZING

        await until(is_finalizing)
        await client.stop(job_id)
        async with asyncio.timeout(60):
            assert (await client.wait(job_id)).state is JobState.STOPPED


@needs_root
async def test_absolute_directories_of_two_instances_at_once_are_apart(system: SystemUnderTest) -> None:
    system.s3.put("bucket/abs/in/word", "hello")
    line = (
        "cat /windlass-in/word > /windlass-out/$WINDLASS_INDEX; "
        f"touch {system.directory}/here.$WINDLASS_INDEX; "
        f"while [ ! -e {system.directory}/here.$((1 - WINDLASS_INDEX)) ]; do sleep 0.05; done; "
        "ls /windlass-out"
    )
    ended = await system.run(
        "attempts",
        line,
        instances=2,
        inputs=(InputMapping(source="oss://bucket/abs/in/", destination="/windlass-in"),),
        outputs=(OutputMapping(source="/windlass-out", destination="oss://bucket/abs/out/"),),
    )
    try:
        assert ended.state is JobState.SUCCEEDED, ended
        assert [system.s3.get(f"bucket/abs/out/{index}") for index in (0, 1)] == [b"hello", b"hello"]
        assert [await system.log(ended.job_id, index=index) for index in (0, 1)] == [b"0\n", b"1\n"]
        assert not os.listdir("/windlass-in")
    finally:
        for place in ("/windlass-in", "/windlass-out"):
            if os.path.isdir(place):
                os.rmdir(place)


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ("oss://bucket/none.tar.gz", "none.tar.gz"),
        ("oss://bucket/hostile.tar.gz", "'../evil'"),
        ("oss://bucket/text.zip", "nor a zip"),
    ],
)
async def test_a_bad_package_fails_the_attempt_once_and_names_what_is_wrong(
    system: SystemUnderTest, package: str, says: str
) -> None:
    system.s3.put("bucket/hostile.tar.gz", a_package(**{"../evil": "x"}))
    system.s3.put("bucket/text.zip", "no archive")
    ended = await system.run("attempts", "true", package=package)
    (attempt,) = ended.instances[0].attempts
    assert (ended.state, attempt.failure) == (JobState.FAILED, FailureKind.USER_CONFIG)
    assert says in attempt.reason


async def test_a_command_finds_all_families_of_variables(system: SystemUnderTest) -> None:
    ended = await system.run("attempts", argv("env"), env={"MINE": "x", "LANG": "de_DE.UTF-8"})
    lines = (await system.log(ended.job_id)).decode().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    wanted = {
        "WINDLASS_JOB_ID": ended.job_id,
        "BATCH_COMPUTE_DAG_JOB_ID": ended.job_id,
        "BATCH_JOB_ID": ended.job_id,
        "BATCH_COMPUTE_DAG_INSTANCE_ID": "0",
        "BATCH_COMPUTE_CLUSTER_ID": "attempts",
        "MINE": "x",
        "LANG": "de_DE.UTF-8",
    }
    assert env | wanted == env


async def test_every_byte_of_a_long_output_arrives_in_order(system: SystemUnderTest) -> None:
    ended = await system.run("attempts", "seq 1 2000000; seq 1 1000 >&2")
    expected = "".join(f"{n}\n" for n in range(1, 2_000_001)).encode()
    assert await system.log(ended.job_id) == expected
    assert (await system.log(ended.job_id, stream=LogStream.STDERR)).endswith(b"\n999\n1000\n")


async def test_output_can_be_followed_while_the_command_runs(system: SystemUnderTest) -> None:
    gate = system.directory / "followed"
    line = f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo second"
    async with system.client() as client:
        job_id = await client.submit(a_job("attempts", line))
        seen = b""
        async for chunk in client.follow_log(job_id, "t", 0):
            seen += chunk.data
            if seen == b"first\n":
                gate.touch()
    assert seen == b"first\nsecond\n"


async def test_a_command_that_runs_too_long_is_ended(system: SystemUnderTest) -> None:
    ended = await system.run("attempts", "sleep 60", timeout=timedelta(seconds=1))
    (attempt,) = ended.instances[0].attempts
    assert (ended.state, attempt.failure) == (JobState.FAILED, FailureKind.TIMEOUT)


async def test_a_missing_command_fails_as_a_shell_would_say_it(system: SystemUnderTest) -> None:
    ended = await system.run("attempts", argv("no-such-program"))
    (attempt,) = ended.instances[0].attempts
    assert (attempt.failure, attempt.exit_code) == (FailureKind.USER_CONFIG, 127)


async def test_slots_can_be_replaced_by_ones_that_start_no_process(system: SystemUnderTest) -> None:
    await system.start_agent("null", program="tests.support.null_executor_agent")
    ended = await system.run("null", argv("no-such-program"), instances=2000)
    assert ended.state is JobState.SUCCEEDED
    assert {len(instance.attempts) for instance in ended.instances} == {1}


async def test_nothing_of_an_attempt_stays_on_the_node(system: SystemUnderTest, node: AgentUnderTest) -> None:
    await system.run("attempts", "echo x", stdout="oss://bucket/gone/")

    async def is_empty() -> bool:
        return node.attempt_directories() == []

    await until(is_empty)
