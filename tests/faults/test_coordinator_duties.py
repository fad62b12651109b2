"""The coordinator is asked to end under load, and its periodic duties fail (A14, A19)."""

import asyncio
import sqlite3
from contextlib import closing, suppress
from datetime import timedelta

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.world import World
from windlass_proto.errors import Unavailable
from windlass_proto.model.states import AttemptState, JobState, NodeState


@scenario("A14")
async def test_a14_asked_to_end_under_load_it_finishes_what_it_has_begun(
    world: World, profile: FaultProfile
) -> None:
    await world.start(slots=4)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, instances=4))
    await world.until_started(job, 4)
    told: dict[str, str] = {}

    async def load(number: int) -> None:
        async with world.new_client(patience=timedelta()) as client:
            with suppress(Unavailable):
                for again in range(10_000):
                    key = f"{number}-{again}"
                    told[key] = await client.submit(world.job("true"), idempotency_key=key)

    users = [asyncio.ensure_future(load(number)) for number in range(profile.of(quick=10, full=50))]
    await world.until(lambda: len(told) > 100)
    async with asyncio.timeout(15):
        assert await asyncio.to_thread(world.coordinator.terminate) == 0
    await asyncio.gather(*users)
    world.coordinator.start()
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    for instance in await world.instances(job):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
    kept = {found.job_id async for found in world.client.list()}
    # What was begun was finished: nothing was stored that nobody was told of.
    assert kept == {job, *told.values()}
    for key, job_id in list(told.items())[:20]:
        assert await world.submit("true", key=key) == job_id


@scenario("A19", quick=False)
async def test_a19_a_duty_that_fails_each_time_is_told_and_tried_again(world: World) -> None:
    world.allowed_tracebacks = ("injected",)
    await world.start()
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_started(job)
    _alter(
        world,
        "CREATE TRIGGER injected BEFORE UPDATE OF state ON nodes WHEN NEW.state = 'SILENT' "
        "BEGIN SELECT RAISE(ABORT, 'injected'); END",
    )
    world.agents[0].pause()
    failures = 'windlass_duty_failures_total{duty="silence"}'

    def has_failed_often() -> bool:
        return failures in world.coordinator.get("/metrics")[1] and world.coordinator.metric(failures) >= 3

    await world.until(has_failed_often)
    status, why = world.coordinator.get("/health/ready")
    assert (status, "degraded" in why) == (503, True)
    assert (await world.client.get(job)).state is JobState.RUNNING
    _alter(world, "DROP TRIGGER injected")
    await world.until_node(world.agents[0], NodeState.SILENT)
    world.agents[0].resume()
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    await world.until(lambda: world.coordinator.get("/health/ready")[0] == 200)


def _alter(world: World, statement: str) -> None:
    with closing(sqlite3.connect(world.coordinator.database, timeout=30)) as connection:
        connection.execute(statement)
        connection.commit()
