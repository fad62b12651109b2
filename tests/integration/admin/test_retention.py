"""What is old is removed by a real coordinator, whole, whenever it is killed meanwhile (fault U07)."""

import asyncio
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinator_process import (
    READY_WITHIN_S,
    CoordinatorProcess,
    coordinator_command,
    environment,
    wait_until,
)
from tests.support.operator import coordinator_verb
from tests.support.transcript import SpokenAgent, Transcript, exited, started
from windlass.client import Client
from windlass_proto.errors import NotFound
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState

SOON = {"RETENTION_FINISHED_JOBS": "1ms", "RETENTION_DELETED_JOBS": "1ms", "RETENTION_SWEEP_EVERY": "200ms"}
DEADLINE_S = 60.0
INSTANCES = 5


@pytest.fixture
def own(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    """One that throws nothing away yet."""
    with CoordinatorProcess(tmp_path / "data", RETENTION_FINISHED_JOBS="0") as coordinator:
        yield coordinator


async def run_jobs(coordinator: CoordinatorProcess, number: int) -> list[JobId]:
    """Jobs that have ended, each with a folder of logs."""
    transcript = Transcript(coordinator)
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    task = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)), instances=INSTANCES)
    ended = []
    async with Client(coordinator.profile) as client:
        for position in range(number):
            job_id = await client.submit(JobSpec(name=f"job-{position}", tasks=(task,)))
            left = INSTANCES
            while left:
                for ref in await agent.poll(want=INSTANCES):
                    await agent.report((ref, started()), (ref, exited()))
                    left -= 1
            assert (await client.wait(job_id)).state is JobState.SUCCEEDED
            folder = coordinator.data / "logs" / job_id / "1" / "0"
            folder.mkdir(parents=True)
            (folder / "0.1.stdout").touch()
            ended.append(job_id)
    await transcript.close()
    return ended


def folders(data: Path) -> set[str]:
    return {entry.name for entry in os.scandir(data / "logs")}


def metrics_of(coordinator: CoordinatorProcess) -> str:
    with urllib.request.urlopen(f"http://{coordinator.http_address}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


async def jobs_that_are_seen(coordinator: CoordinatorProcess) -> set[JobId]:
    """Each with all of its instances, or not at all."""
    seen = set()
    async with Client(coordinator.profile) as client:
        async for job in client.list():
            try:
                indexes = [one.index async for one in client.instances(job.job_id)]
            except NotFound:  # removed between the two calls
                continue
            if indexes:
                assert indexes == list(range(INSTANCES))
                seen.add(job.job_id)
    return seen


async def test_old_jobs_go_whole_with_their_logs_and_the_rest_stays(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    *old, newest = await run_jobs(own, 4)
    own.ask_to_end()
    assert own.exit_code() == 0
    with CoordinatorProcess(own.data, **SOON) as sweeping:
        wait_until(lambda: folders(own.data) == {newest}, within_s=DEADLINE_S, what="the old logs are gone")
        assert await jobs_that_are_seen(sweeping) == {newest}
        told = await asyncio.to_thread(metrics_of, sweeping)
        assert f"windlass_retention_removed_jobs {len(old)}.0" in told
        sweeping.kill()
    assert coordinator_verb("doctor", "--data", own.data).returncode == 0


@pytest.mark.parametrize("point", ["coord.retain.before_commit", "coord.retain.after_commit"])
async def test_a_kill_in_the_middle_of_a_sweep_leaves_no_half_of_a_job(
    own: CoordinatorProcess, point: str
) -> None:
    *_, newest = await run_jobs(own, 4)
    own.kill()
    killed = subprocess.run(
        coordinator_command(own.data),
        env=environment(**SOON) | {"WINDLASS_TEST_BUILD": "1", "WINDLASS_FAILPOINT": point},
        capture_output=True,
        timeout=READY_WITHIN_S,
        check=False,
    )
    assert killed.returncode == -9
    assert coordinator_verb("doctor", "--data", own.data).returncode == 0
    # Logs go after the commit: what is left belongs to jobs that are there, or to nobody; never less.
    assert newest in folders(own.data)

    with CoordinatorProcess(own.data, **SOON) as again:
        wait_until(lambda: folders(own.data) == {newest}, within_s=DEADLINE_S, what="the next sweep ends it")
        assert await jobs_that_are_seen(again) == {newest}


async def test_reading_while_it_is_swept_sees_whole_jobs_only(own: CoordinatorProcess) -> None:
    jobs = await run_jobs(own, 8)
    own.ask_to_end()
    own.exit_code()
    with CoordinatorProcess(own.data, **SOON) as sweeping:
        while (seen := await jobs_that_are_seen(sweeping)) != {jobs[-1]}:
            assert seen <= set(jobs)
