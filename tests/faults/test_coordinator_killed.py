"""The coordinator dies between a commit and the answer about it, and again and again (A01-A05)."""

import asyncio
import random
import time
from collections import Counter

import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.world import LEASE_S, World
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import TaskSpec
from windlass_proto.model.states import AttemptState, InstanceState, JobState, TaskState

KILLED = -9


@scenario("A01")
@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.full_only), "after"])
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
@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.full_only), "after"])
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
@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.full_only), "after"])
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


@scenario("A04", limit_s=900)
async def test_a04_a_coordinator_that_is_killed_again_and_again_ends_every_job_as_without(
    world: World, profile: FaultProfile
) -> None:
    rng = random.Random(4)
    size = profile.of(quick=30, full=200)
    kills_until = time.monotonic() + profile.of(quick=6, full=300)
    await world.start(agents=2, slots=8)
    jobs = []
    while not jobs or time.monotonic() < kills_until:
        jobs.append(await world.submit(*_mixed_tasks(world, size), fail_on_instance_failure=False))
        ending = asyncio.ensure_future(world.wait(jobs[-1], within_s=600))
        while not ending.done() and time.monotonic() < kills_until:
            await world.lasts(rng.uniform(0.2, 3))
            world.coordinator.kill()
            world.look()
            world.coordinator.start()
        await ending
    for job in jobs:
        await _ended_as_the_oracle_says(world, job, size)


def _mixed_tasks(world: World, size: int) -> tuple[TaskSpec, ...]:
    """A DAG whose end is known beforehand: it depends on the index alone."""
    short = "sleep 0.$((WINDLASS_INDEX % 4))"
    return (
        world.task(short, name="first", instances=size),
        world.task(
            f"{short}; exit $((WINDLASS_INDEX % 3))",
            name="mixed",
            after=("first",),
            instances=size,
            max_retries=1,
        ),
        world.task(short, name="good", after=("first",), instances=size // 2),
        world.task("true", name="last", after=("good",)),
        world.task("true", name="never", after=("mixed",)),
    )


async def _ended_as_the_oracle_says(world: World, job: JobId, size: int) -> None:
    status = await world.client.get(job)
    assert status.state is JobState.FAILED
    assert {task.name: task.state for task in status.tasks} == {
        "first": TaskState.SUCCEEDED,
        "mixed": TaskState.FAILED,
        "good": TaskState.SUCCEEDED,
        "last": TaskState.SUCCEEDED,
        "never": TaskState.SKIPPED,
    }
    bad = sum(index % 3 != 0 for index in range(size))
    counted = Counter((one.task, one.state, one.user_failures) for one in await world.instances(job))
    assert counted == {
        ("first", InstanceState.SUCCEEDED, 0): size,
        ("mixed", InstanceState.SUCCEEDED, 0): size - bad,
        ("mixed", InstanceState.FAILED, 2): bad,
        ("good", InstanceState.SUCCEEDED, 0): size // 2,
        ("last", InstanceState.SUCCEEDED, 0): 1,
    }


@scenario("A05")
async def test_a05_commands_know_nothing_of_a_coordinator_that_is_down_for_long(
    world: World, profile: FaultProfile
) -> None:
    stay, go = profile.of(quick=3, full=50), profile.of(quick=3, full=20)
    await world.start(slots=stay + go)
    meanwhile, after = world.gate(), world.gate()
    body = "echo begin; {}; echo end; exit $((WINDLASS_INDEX % 2))"
    ending = await world.submit(
        world.task(body.format(meanwhile.wait), instances=go), fail_on_instance_failure=False
    )
    staying = await world.submit(
        world.task(body.format(after.wait), instances=stay), fail_on_instance_failure=False
    )
    await world.until_started(ending, go)
    await world.until_started(staying, stay)
    world.coordinator.kill()
    meanwhile.open()
    await world.until(lambda: len(world.ledger.ends(ending)) == go)
    await world.lasts(profile.of(quick=LEASE_S, full=60))
    world.coordinator.start()
    after.open()
    for job, count in ((ending, go), (staying, stay)):
        assert (await world.wait(job)).state is JobState.FAILED
        assert len(world.ledger.starts(job)) == len(world.ledger.ends(job)) == count
        for instance in await world.instances(job):
            (attempt,) = instance.attempts
            assert attempt.exit_code == instance.index % 2
            assert await world.log(job, instance.index) == b"begin\nend\n"
