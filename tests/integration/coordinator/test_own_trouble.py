"""The coordinator in trouble of its own making: stopped, ended under load, its log held up by readers."""

import asyncio
import json
import signal
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess, wait_until
from tests.support.transcript import SpokenAgent, Transcript
from windlass.client import Client
from windlass_coordinator.stores.sqlite.files import LOG_BOUND_BYTES
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec

WITHIN_S = 30.0
LEASE_S = 5.0
"""Of the coordinator `quick`, with its tolerance."""


def a_job(*, tasks: int = 1) -> JobSpec:
    return JobSpec(
        name="job",
        tasks=tuple(
            TaskSpec(name=TaskName(f"task-{n}"), command=Argv(args=("true", "x" * 500))) for n in range(tasks)
        ),
    )


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    settings = {"LEASE_SHORTEST_INTERVAL": "1s", "LEASE_SHORTEST_LEASE": "3s", "LEASE_REPLACE_AFTER": "6s"}
    with CoordinatorProcess(tmp_path / "data", **settings) as coordinator:
        yield coordinator


def logged(coordinator: CoordinatorProcess, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in coordinator.log.read_text().splitlines())


async def test_a_time_in_which_the_coordinator_stood_still_counts_against_no_node(
    quick: CoordinatorProcess,
) -> None:
    transcript = Transcript(quick)
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    assert await agent.heartbeat() is not None

    quick.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE_S + 2)  # the fault itself lasts as long
    quick.process.send_signal(signal.SIGCONT)

    wait_until(lambda: logged(quick, "coordinator.stalled"), within_s=WITHIN_S, what="it notices")
    assert await agent.heartbeat() is not None
    assert not logged(quick, "node.silent")
    await transcript.close()


async def test_asked_to_end_under_load_it_keeps_what_it_acknowledged(quick: CoordinatorProcess) -> None:
    acknowledged: list[JobId] = []

    async def submit_until_it_ends(client: Client) -> None:
        try:
            while True:
                acknowledged.append(await client.submit(a_job()))
        except Unavailable:
            return

    client = Client(quick.profile, patience=timedelta())
    async with client, asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(submit_until_it_ends(client))
        while len(acknowledged) < 200:
            await asyncio.sleep(0)
        quick.ask_to_end()
    assert await asyncio.to_thread(quick.exit_code) == 0

    quick.start()
    async with Client(quick.profile) as client:
        stored = {job.job_id async for job in client.list()}
    assert set(acknowledged) <= stored


async def test_the_databases_log_stays_short_under_readers_that_never_pause(
    quick: CoordinatorProcess,
) -> None:
    log = quick.data / "windlass.db-wal"
    longest = 0

    async def look(client: Client) -> None:
        while not done.is_set():
            _ = [job async for job in client.list()]

    async def write(client: Client) -> None:
        nonlocal longest
        for _ in range(60):
            await client.submit(a_job(tasks=500))
            longest = max(longest, log.stat().st_size)
        done.set()

    done = asyncio.Event()
    async with Client(quick.profile) as client, asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(look(client))
        group.create_task(write(client))

    assert longest < 3 * LOG_BOUND_BYTES


def test_a_log_that_a_reader_held_up_is_shortened_when_the_reader_has_gone(
    quick: CoordinatorProcess,
) -> None:
    log = quick.data / "windlass.db-wal"
    reader = sqlite3.connect(f"file:{quick.data / 'windlass.db'}?mode=ro", uri=True)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchone()
    asyncio.run(_submit_until(quick, lambda: log.stat().st_size > LOG_BOUND_BYTES))
    reader.close()

    asyncio.run(_submit_until(quick, lambda: log.stat().st_size < LOG_BOUND_BYTES))


async def _submit_until(coordinator: CoordinatorProcess, holds: Callable[[], bool]) -> None:
    async with Client(coordinator.profile) as client, asyncio.timeout(120):
        while not holds():
            await client.submit(a_job(tasks=500))


def test_readiness_and_bounds_are_told_as_metrics(quick: CoordinatorProcess) -> None:
    with urllib.request.urlopen(f"http://{quick.http_address}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()

    assert "windlass_ready 1.0" in metrics
    assert 'python_gc_collections_total{generation="2"}' in metrics
    assert 'windlass_bound_limit{bound="store_queue"} 8192.0' in metrics
    assert 'windlass_refused_total{bound="sessions_per_s"} 0.0' in metrics
