"""The genome example finds the same whatever is killed in each phase: mounts, command, outputs."""

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.s3_server import S3Server, s3_server
from tests.support.world import World, a_world
from windlass.jobfile import plan_job, read_job_file
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import Argv, TaskSpec
from windlass_proto.model.states import AttemptState, InstanceState, JobState

GENOME = Path(__file__).parents[2] / "examples" / "genome"
BUCKET = "oss://windlass/genome/"
AT_MOUNTED = "agent.handover.before"
AT_OUTPUTS = ("agent.outputs.after_send:4", "agent.outputs.after_commit", "agent.outputs.after_copy:7")
KILLED = -int(signal.SIGKILL)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world
        await world.close()


@pytest.fixture
def store(world: World) -> S3Server:
    """Holds the samples and the program; not below what the world looks through at its end."""
    root = Path(world.stack.enter_context(tempfile.TemporaryDirectory(prefix="genome-")))
    data = root / "windlass" / "genome"
    subprocess.run([sys.executable, GENOME / "prepare.py", data / "input"], check=True, timeout=60)
    with tarfile.open(data / "program.tar.gz", "w:gz") as packed:
        packed.add(GENOME / "program", arcname=".")
    return world.stack.enter_context(s3_server(root))


def tasks(world: World, *, before_end: str = "true") -> tuple[TaskSpec, ...]:
    """Those of the job file, noted in the ledger; `call` does `before_end` when it has its results."""
    made = []
    for task in plan_job(read_job_file(GENOME / "job.yaml")).spec.tasks:
        assert isinstance(task.command, Argv)
        line = f"{sys.executable} {task.command.args[1]}"
        if task.name == "call":
            line = f"{line}; {before_end}"
        noted = world.task(line, name=task.name)
        made.append(replace(task, command=noted.command, package=f"{BUCKET}program.tar.gz"))
    return tuple(made)


async def result(world: World, store: S3Server, job: JobId) -> str:
    """What the job found, after it was compared with what was planted."""
    status = await world.wait(job, within_s=300)
    assert status.state is JobState.SUCCEEDED, status.reason
    found = store.root / "windlass" / "genome" / "result" / "variants.tsv"
    subprocess.run([sys.executable, GENOME / "check.py", found], check=True, timeout=60)
    calls = store.root / "windlass" / "genome" / "calls"
    assert len(list(calls.glob("sample-*.tsv"))) == 200
    return found.read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounts need root and /dev/fuse"
)
async def test_the_same_is_found_when_an_instance_is_killed_in_each_phase(
    world: World, store: S3Server
) -> None:
    settings = {"STORAGE": str(store.storage_file(world.directory / "storage.toml"))}
    await world.start(agents=2, slots=1, agent_settings=settings)
    undisturbed = await result(world, store, await world.submit(*tasks(world)))

    gate = world.gate()
    job = await world.submit(*tasks(world, before_end=gate.wait))
    await world.until_started(job, count=2)
    victim, other = world.agents
    os.kill(other.commands()[0], signal.SIGKILL)
    victim.kill()
    victim.start_again(failpoint=AT_OUTPUTS[0])
    gate.open()
    for failpoint in (*AT_OUTPUTS[1:], AT_MOUNTED, ""):
        assert victim.exit_code() == KILLED
        victim.start_again(failpoint=failpoint)
    assert await result(world, store, job) == undisturbed

    instances = [one for one in await world.instances(job) if one.task == "call"]
    assert [one.state for one in instances] == [InstanceState.SUCCEEDED] * 8
    assert sum(one.user_failures for one in instances) == 1
    failures = [attempt.failure for one in instances for attempt in one.attempts if attempt.failure]
    assert FailureKind.USER_SIGNAL in failures
    for one in instances:
        assert [attempt.state for attempt in one.attempts].count(AttemptState.SUCCEEDED) == 1
