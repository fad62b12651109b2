"""Tasks in containers, on a real docker daemon: what they see, how they end, and what is left of them."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.agent_system import AgentUnderTest, SystemUnderTest, a_job, agent_system, argv, until
from tests.support.container_jobs import BUSYBOX, an_agent, ended, running, until_gone, until_there
from tests.support.docker_engine import IMAGE, DockerEngine, why_no_docker
from tests.support.s3_server import s3_server
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Container, InputMapping, OutputMapping
from windlass_proto.model.states import AttemptState, JobState, LogStream

pytestmark = pytest.mark.skipif(bool(why_no_docker()), reason=why_no_docker() or "docker is there")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, docker: DockerEngine) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets/bucket").mkdir(parents=True)
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(docker: DockerEngine) -> Iterator[None]:
    yield
    assert docker.containers() == []


@pytest.fixture(scope="module")
def shared(system: SystemUnderTest, docker: DockerEngine) -> AgentUnderTest:
    """Whoever ends it starts it again."""
    return asyncio.run(an_agent(system, docker, "shared", kill_grace="1s"))


async def test_a_command_in_a_container_is_as_exact_as_any_other(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    done = await system.run(
        "shared",
        "head -c 3000000 /dev/zero; echo to stderr >&2; cat; exit 7",
        container=BUSYBOX,
    )
    (instance,) = done.instances
    (attempt,) = instance.attempts
    assert (attempt.exit_code, attempt.failure) == (7, FailureKind.USER_EXIT), attempt
    assert await system.log(done.job_id) == bytes(3_000_000)
    assert await system.log(done.job_id, stream=LogStream.STDERR) == b"to stderr\n"
    (image,) = json.loads(docker.docker("image", "inspect", IMAGE))
    assert attempt.image_digest == image["Id"]


async def test_it_sees_what_the_services_had_it_see_and_has_no_powers(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    done = await system.run(
        "shared",
        "env; ulimit -n; id -u; pwd; grep -E 'CapEff|NoNewPrivs' /proc/self/status",
        container=BUSYBOX,
        env={"MINE": "a b=c", "HOME": "/tmp"},
        resources=Resources(memory_bytes=64 << 20, cpu=1.0, pids=50, open_files=100),
    )
    said = (await system.log(done.job_id)).decode().splitlines()
    assert done.state is JobState.SUCCEEDED
    for line in (
        "USER=root",
        "PWD=/batchcompute/workdir",
        "PATH=/sbin:/usr/sbin:/bin:/usr/bin",
        "MINE=a b=c",
    ):
        assert line in said
    assert {"HOME=/tmp", "WINDLASS_INDEX=0", "BATCH_COMPUTE_DAG_INSTANCE_ID=0"} <= set(said)
    assert said[-5:] == ["100", "0", "/batchcompute/workdir", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]


async def test_inputs_outputs_and_absolute_paths_are_in_the_container_too(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    system.s3.put("bucket/in/data.txt", "from the store")
    done = await system.run(
        "shared",
        "cat in/data.txt /mapped/data.txt > out/both && echo kept > /results/kept",
        container=BUSYBOX,
        inputs=(
            InputMapping(source="oss://bucket/in/", destination="in"),
            InputMapping(source="oss://bucket/in/", destination="/mapped"),
        ),
        outputs=(
            OutputMapping(source="out", destination="oss://bucket/results/a/"),
            OutputMapping(source="/results", destination="oss://bucket/results/b/"),
        ),
    )
    assert done.state is JobState.SUCCEEDED, done
    assert system.s3.get("bucket/results/a/both") == b"from the storefrom the store"
    assert system.s3.get("bucket/results/b/kept") == b"kept\n"


async def test_a_command_that_needs_more_memory_than_its_limit_is_told_from_one_that_was_killed(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    limit = Resources(memory_bytes=32 << 20)
    ends = [
        await system.run("shared", line, container=BUSYBOX, resources=limit)
        for line in ("dd if=/dev/zero of=/dev/null bs=200M count=1", "kill -9 $$")
    ]
    attempts = [end.instances[0].attempts[0] for end in ends]
    assert [(one.exit_code, one.failure) for one in attempts] == [
        (137, FailureKind.OOM),
        (137, FailureKind.USER_EXIT),
    ]
    assert str(32 << 20) in attempts[0].reason


async def test_what_cannot_be_started_is_told_by_its_cause(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    missing = await system.run("shared", argv("no-such-program"), container=BUSYBOX)
    assert missing.instances[0].attempts[0].exit_code == 127
    async with system.client() as client:
        # The node's failure, which is tried again later.
        none = Container(image="127.0.0.1:1/there-is/none:1")
        job_id = await client.submit(a_job("shared", "true", container=none))

        async def has_failed() -> bool:
            found = [one async for one in client.instances(job_id, all_attempts=True)]
            return bool(found) and found[0].attempts[0].state is AttemptState.FAILED

        await until(has_failed)
        await client.stop(job_id)
        instance = await ended(system, job_id)
    assert instance.attempts[0].failure is FailureKind.INFRA_PREPARE
    assert "connection refused" in instance.attempts[0].reason


async def test_a_command_that_runs_too_long_is_ended_with_its_container(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    line = "trap 'echo ending' TERM; echo begun; while true; do sleep 0.1; done"
    done = await system.run("shared", line, container=BUSYBOX, timeout=timedelta(seconds=4))
    (attempt,) = done.instances[0].attempts
    assert attempt.failure is FailureKind.TIMEOUT
    assert await system.log(done.job_id) == b"begun\nending\n"


async def test_a_stopped_job_leaves_no_container(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    job_id = await running(system, docker, "shared", "trap '' TERM; while true; do sleep 0.1; done")
    async with system.client() as client:
        await client.stop(job_id)
    instance = await ended(system, job_id)
    assert instance.attempts[-1].state is AttemptState.STOPPED
    assert docker.containers() == []


async def test_a_container_outlives_the_agent_and_is_taken_over_by_the_next(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    job_id = await running(system, docker, "shared", "while [ ! -e go ]; do sleep 0.1; done; exit 5")
    shared.end(signal.SIGKILL)
    shared.start_again()
    (newest_work(shared) / "go").touch()
    instance = await ended(system, job_id)
    (attempt,) = instance.attempts
    assert (attempt.exit_code, attempt.failure) == (5, FailureKind.USER_EXIT)
    assert attempt.image_digest.startswith("sha256:")


async def test_a_killed_keeper_takes_its_container_with_it(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    job_id = await running(system, docker, "shared", "while [ ! -e go ]; do sleep 0.1; done")
    (before,) = docker.containers()
    os.kill(int((shared.state / "slots/0/keeper.lock").read_text()), signal.SIGKILL)
    await until_gone(docker, before)
    await until_there(docker)
    (newest_work(shared) / "go").touch()
    instance = await ended(system, job_id)
    assert [one.failure for one in instance.attempts] == [FailureKind.INFRA_KEEPER_LOST, None]


async def test_containers_whose_agent_and_keeper_are_gone_are_found_at_the_next_start(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    job_id = await running(system, docker, "shared", "while true; do sleep 0.1; done")
    (before,) = docker.containers()
    shared.end(signal.SIGKILL)
    os.kill(int((shared.state / "slots/0/keeper.lock").read_text()), signal.SIGKILL)
    assert docker.containers() == [before]
    shared.start_again()
    await until_gone(docker, before)
    async with system.client() as client:
        await client.stop(job_id)
    await ended(system, job_id)


async def test_a_container_whose_engine_crashes_is_ended_without_it(
    system: SystemUnderTest, docker: DockerEngine, shared: AgentUnderTest
) -> None:
    line = "while [ ! -e go ]; do sleep 0.1; done"
    job_id = await running(system, docker, "shared", line)
    container_id = docker.docker("ps", "--no-trunc", "--quiet")
    docker.kill()
    async with system.client() as client:

        async def is_told() -> bool:
            found = [one async for one in client.instances(job_id, all_attempts=True)]
            return found[0].attempts[0].failure is FailureKind.INFRA_KEEPER_LOST

        await until(is_told)
    assert processes_of(container_id) == []
    docker.start_again()

    async def goes_on() -> bool:
        return bool(docker.docker("ps", "--quiet"))

    await until(goes_on)
    (newest_work(shared) / "go").touch()
    instance = await ended(system, job_id)
    assert instance.attempts[-1].state is AttemptState.SUCCEEDED

    async def nothing_is_left() -> bool:
        return docker.containers() == []

    await until(nothing_is_left)


def newest_work(agent: AgentUnderTest) -> Path:
    """The work directory of what runs now."""
    return max(agent.state.glob("attempts/*/work"), key=lambda path: path.stat().st_mtime_ns)


def processes_of(container_id: str) -> list[str]:
    """By the groups that the engine made for it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if container_id in path.read_text():
                found.append(path.parent.name)
    return found
