"""The coordinator as a process: one per directory, ends when asked to, says how it is."""

import asyncio
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.support.coordinator_process import (
    CoordinatorProcess,
    coordinator_command,
    environment,
    wait_until,
)
from tests.support.transcript import SpokenAgent, Transcript
from windlass.client import Client
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState

DEADLINE_S = 30.0
A_JOB = JobSpec(name="job", tasks=(TaskSpec(name=TaskName("task"), command=Argv(args=("true",))),))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    """A coordinator that the test may end."""
    with CoordinatorProcess(tmp_path / "data") as coordinator:
        yield coordinator


def get(coordinator: CoordinatorProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{coordinator.http_address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def run_to_its_end(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment(), check=False
    )


def test_a_second_coordinator_on_the_same_data_says_who_has_it(coordinator: CoordinatorProcess) -> None:
    second = run_to_its_end(*coordinator_command(coordinator.data))

    assert second.returncode == 2
    assert second.stderr == (
        f"windlass-coordinator: {coordinator.data} is in use by another coordinator "
        f"(pid {coordinator.process.pid}): stop it first\n"
    )
    assert get(coordinator, "/health/live")[0] == 200


def test_a_port_that_somebody_else_has_is_named(coordinator: CoordinatorProcess, tmp_path: Path) -> None:
    second = run_to_its_end(*coordinator_command(tmp_path / "data", listen=coordinator.grpc_address))

    assert second.returncode == 2
    assert f"cannot listen at {coordinator.grpc_address}: it is in use" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_damaged_database_is_refused_in_one_line(own: CoordinatorProcess) -> None:
    own.ask_to_end()
    assert own.exit_code() == 0
    database = own.data / "windlass.db"
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 2])

    again = run_to_its_end(*coordinator_command(own.data))

    assert again.returncode == 2
    assert f"{database} is not a whole database" in again.stderr
    assert "Traceback" not in again.stderr
    assert database.read_bytes() == whole[: len(whole) // 2]


def test_secrets_are_for_their_owner_only(coordinator: CoordinatorProcess) -> None:
    modes = {
        name: (coordinator.data / name).stat().st_mode & 0o777 for name in (".", "admin.token", "windlass.db")
    }

    assert modes == {".": 0o700, "admin.token": 0o600, "windlass.db": 0o600}
    assert coordinator.admin_token not in coordinator.log.read_text()


def test_it_says_how_it_is(coordinator: CoordinatorProcess) -> None:
    assert get(coordinator, "/health/live")[0] == 200
    assert get(coordinator, "/health/ready")[0] == 200
    status, metrics = get(coordinator, "/metrics")
    assert (status, "windlass_polls_parked 0.0" in metrics) == (200, True)
    assert get(coordinator, "/secrets")[0] == 404


async def test_asked_to_end_it_sends_agents_away_and_tells_watchers(own: CoordinatorProcess) -> None:
    transcript = Transcript(own)
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    poll = agent.begin_poll()
    await transcript.wait_until_parked(polls=1)

    own.ask_to_end()

    assert (await poll.answer()).go_away
    await transcript.close()
    assert await asyncio.to_thread(own.exit_code) == 0


async def test_watchers_do_not_keep_it_from_ending(own: CoordinatorProcess) -> None:
    async with Client(own.profile) as client:
        job_id = await client.submit(A_JOB)
        async with asyncio.timeout(DEADLINE_S), aclosing(client.watch(job_id)) as statuses:
            assert (await anext(statuses)).state is JobState.WAITING
            own.ask_to_end()
            # Calls that are being served have 10 s to end; a watch would use up all of them.
            async with asyncio.timeout(8):
                assert await asyncio.to_thread(own.exit_code) == 0


async def test_everything_is_there_after_an_ordinary_end_and_after_a_kill(own: CoordinatorProcess) -> None:
    token = own.admin_token
    async with Client(own.profile) as client:
        job_id = await client.submit(A_JOB, idempotency_key="key")
    own.ask_to_end()
    assert own.exit_code() == 0
    own.start()
    async with Client(own.profile) as client:
        assert (await client.get(job_id)).state is JobState.WAITING
        await client.stop(job_id)
    own.kill()
    own.start()
    async with Client(own.profile) as client:
        assert (await client.get(job_id)).state is JobState.STOPPED
        assert await client.submit(A_JOB, idempotency_key="key") == job_id

    assert own.admin_token == token


def test_it_leaves_nothing_behind_in_its_directory(own: CoordinatorProcess) -> None:
    own.ask_to_end()
    assert own.exit_code() == 0

    wait_until(lambda: own.process.poll() is not None, within_s=1, what="it has ended")
    assert set(os.listdir(own.data)) == {
        "admin.token",
        "coordinator.json",
        "lock",
        "logs",
        "master.key",
        "reserve",
        "windlass.db",
    }
