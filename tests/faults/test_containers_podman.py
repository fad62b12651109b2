"""Containers by podman, in the full profile: as tests/integration/agent/test_containers.py with docker."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.faults.scenarios import FaultProfile
from tests.support.agent_system import SystemUnderTest, agent_system
from tests.support.container_jobs import BUSYBOX, an_agent, ended, running, until_gone, until_there
from tests.support.podman_engine import PodmanEngine, podman_engine, why_no_podman
from tests.support.s3_server import s3_server
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import InputMapping, OutputMapping
from windlass_proto.model.states import AttemptState, JobState, LogStream

pytestmark = pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman() or "podman is there")


@pytest.fixture(autouse=True)
def _in_the_full_profile(profile: FaultProfile) -> None:
    if not profile.is_full:
        pytest.skip("tried by make faults")


@pytest.fixture
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanEngine]:
    with podman_engine(tmp_path_factory.mktemp("podman")) as engine:
        yield engine
        assert engine.containers() == []


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets/bucket").mkdir(parents=True)
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as system:
        yield system


async def test_commands_are_exact_and_limited(system: SystemUnderTest, podman: PodmanEngine) -> None:
    await an_agent(system, podman, "exact")
    system.s3.put("bucket/in/data.txt", "from the store\n")
    done = await system.run(
        "exact",
        "cat /mapped/data.txt; head -c 3000000 /dev/zero; echo $USER $PWD >&2;"
        " grep CapEff /proc/self/status > out/caps; exit 7",
        container=BUSYBOX,
        inputs=(InputMapping(source="oss://bucket/in/", destination="/mapped"),),
        outputs=(OutputMapping(source="out", destination="oss://bucket/out/"),),
        resources=Resources(memory_bytes=64 << 20, cpu=1.0, pids=50, open_files=100),
    )
    (attempt,) = done.instances[0].attempts
    assert (attempt.exit_code, attempt.failure) == (7, FailureKind.USER_EXIT), attempt
    assert await system.log(done.job_id) == b"from the store\n" + bytes(3_000_000)
    assert await system.log(done.job_id, stream=LogStream.STDERR) == b"root /batchcompute/workdir\n"
    assert attempt.image_digest.startswith("sha256:")


async def test_a_success_is_one_and_nothing_of_podman_is_taken_for_the_commands(
    system: SystemUnderTest, podman: PodmanEngine
) -> None:
    await an_agent(system, podman, "success")
    done = await system.run("success", "echo fine", container=BUSYBOX)
    (attempt,) = done.instances[0].attempts
    assert (done.state, attempt.reason) == (JobState.SUCCEEDED, "")


async def test_stopping_and_time_limits_end_containers(system: SystemUnderTest, podman: PodmanEngine) -> None:
    await an_agent(system, podman, "ends", kill_grace="1s")
    line = "trap '' TERM; while true; do sleep 0.1; done"
    job_id = await running(system, podman, "ends", line)
    async with system.client() as client:
        await client.stop(job_id)
    assert (await ended(system, job_id)).attempts[-1].state is AttemptState.STOPPED
    assert podman.containers() == []
    done = await system.run("ends", line, container=BUSYBOX, timeout=timedelta(seconds=4))
    assert done.instances[0].attempts[0].failure is FailureKind.TIMEOUT


async def test_kills_of_agent_and_keeper_leave_nothing(system: SystemUnderTest, podman: PodmanEngine) -> None:
    agent = await an_agent(system, podman, "kills")
    job_id = await running(system, podman, "kills", "while [ ! -e go ]; do sleep 0.1; done; exit 5")
    agent.end(signal.SIGKILL)
    agent.start_again()
    (before,) = podman.containers()
    os.kill(int((agent.state / "slots/0/keeper.lock").read_text()), signal.SIGKILL)
    await until_gone(podman, before)
    await until_there(podman)
    (work,) = agent.state.glob("attempts/*.2/work")
    (work / "go").touch()
    instance = await ended(system, job_id)
    assert [one.failure for one in instance.attempts] == [
        FailureKind.INFRA_KEEPER_LOST,
        FailureKind.USER_EXIT,
    ]
