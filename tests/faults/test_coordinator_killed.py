"""The coordinator dies between a commit and the answer about it, and again and again (A01-A05)."""

import asyncio

import pytest

from tests.faults.scenarios import scenario
from tests.support.world import World
from windlass_proto.model.states import AttemptState, JobState

KILLED = -9


@scenario("A01")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a01_a_submit_whose_reply_was_lost_makes_one_job(world: World, moment: str) -> None:
    await world.start(slots=4)
    world.coordinator.kill()
    world.coordinator.start(failpoint=f"coord.submit.{moment}_commit")
    submitting = asyncio.ensure_future(world.submit(world.task(instances=3), key="one"))
    assert await asyncio.to_thread(world.coordinator.exit_code) == KILLED
    world.coordinator.start()
    job = await submitting
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.submit(world.task(instances=3), key="one") == job
    assert [found.job_id async for found in world.client.list()] == [job]
    assert sorted(entry.index for entry in world.ledger.starts()) == [0, 1, 2]


@scenario("A02")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a02_a_claim_whose_answer_was_lost_starts_once_and_costs_nothing(
    world: World, moment: str
) -> None:
    await world.start()
    world.coordinator.kill()
    world.coordinator.start(failpoint=f"coord.claim.{moment}_commit")
    await world.until_ready(*world.agents)
    job = await world.submit("true")
    assert await asyncio.to_thread(world.coordinator.exit_code) == KILLED
    world.coordinator.start()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    (instance,) = await world.instances(job)
    assert (instance.user_failures, instance.infra_failures) == (0, 0)
    assert len(world.ledger.starts(job)) == 1


@scenario("A03")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a03_a_result_whose_verdict_was_lost_counts_once(world: World, moment: str) -> None:
    await world.start()
    gate = world.gate()
    job = await world.submit(
        world.task(gate.wait, name="parent"), world.task(name="child", after=("parent",), instances=2)
    )
    await world.until_started(job)
    world.coordinator.kill()
    gate.open()
    world.coordinator.start(failpoint=f"coord.report.{moment}_commit")
    assert await asyncio.to_thread(world.coordinator.exit_code) == KILLED
    world.coordinator.start()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert len(world.ledger.starts(job, task="child")) == 2
    for instance in await world.instances(job):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
