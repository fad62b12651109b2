"""Too much work, work that harms, and work for very long (L07-L16)."""

import asyncio
import os
import sqlite3
import tarfile
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support.s3_server import s3_server
from tests.support.world import SILENT_AFTER_S, World
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.states import AttemptState, JobState, NodeState


@scenario("L07")
async def test_l07_one_tenants_many_do_not_hold_up_anothers_few(world: World) -> None:
    raise NotRun(
        "there is one tenant only, and no share among tenants: they come with identities and policies"
    )


@scenario("L07")
async def test_l07_a_single_urgent_instance_starts_before_a_hundred_thousand_that_wait(world: World) -> None:
    """Within a tenant priority decides, whatever is queued."""
    await world.start(slots=1)
    crowd = await world.submit(world.task("sleep 0.2", instances=100_000))
    await world.until_started(crowd)
    urgent = await world.submit("true", priority=1)
    assert (await world.wait(urgent)).state is JobState.SUCCEEDED
    assert (await world.client.get(crowd)).tasks[0].counts.succeeded < 100
    await world.stop(crowd)


@scenario("L08", quick=False, limit_s=1200)
async def test_l08_many_that_fail_at_once_come_back_ever_later_and_not_together(
    world: World, profile: FaultProfile
) -> None:
    retries, count = profile.of(quick=(2, 40), full=(8, 2_000))
    await world.start(agents=2, slots=8)
    failing = await world.submit(
        world.task("exit 1", instances=count, max_retries=retries), fail_on_instance_failure=False
    )
    other = await world.submit("true", priority=1)
    assert (await world.wait(other)).state is JobState.SUCCEEDED
    assert (await world.wait(failing, within_s=600)).state is JobState.FAILED
    waits: list[list[float]] = [[] for _ in range(retries)]
    for instance in await world.instances(failing):
        # What a node had fetched ahead and gave back without starting it is no retry.
        ran = [one for one in instance.attempts if one.state is not AttemptState.RELEASED]
        assert len(ran) == retries + 1
        for number, (one, following) in enumerate(pairwise(ran)):
            assert one.ended_at is not None
            waits[number].append((following.leased_at - one.ended_at).total_seconds())
    base_s = 0.2  # of the test profile
    for number, some in enumerate(waits):
        assert min(some) >= min(2.0, base_s * 2**number) / 2 - 0.01
    assert len({round(wait, 2) for wait in waits[0]}) > 3, "they do not come back together"


@scenario("L09", quick=False)
async def test_l09_a_task_that_takes_its_nodes_down_is_poison_and_the_fleet_lives(world: World) -> None:
    await world.start(agents=4, slots=1)
    poison = await world.submit("sleep 600")
    victims = []
    for number in range(1, 4):
        await world.until_started(poison, attempt=number)
        await world.until_running(poison)
        (attempt,) = (await world.attempts(poison))[-1:]
        (victim,) = [agent for agent in world.agents if agent.name == attempt.node_name]
        victim.kill_all()
        victims.append(victim)
    assert (await world.wait(poison)).state is JobState.FAILED
    attempts = await world.attempts(poison)
    assert [attempt.state for attempt in attempts] == [AttemptState.LOST] * 3
    assert attempts[-1].failure is FailureKind.POISON
    assert len({attempt.node_name for attempt in attempts}) == 3
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED
    for victim in victims:  # only the next agent can tidy up behind one that was killed for good
        victim.start_again()
        await world.until_node(victim, NodeState.READY)


@scenario("L10", quick=False)
async def test_l10_a_node_that_can_prepare_nothing_is_quarantined_and_others_do_the_work(
    world: World,
) -> None:
    """Its object store cannot be reached; that of the other one can."""
    with s3_server(_buckets(world)) as store:
        good = store.storage_file(world.directory / "good.toml")
        bad = world.directory / "bad.toml"
        bad.write_text(good.read_text().replace(store.endpoint, "http://127.0.0.1:9"))
        # Retries come before new jobs; here they come when all is decided.
        await world.start(agents=0, settings={"RETRY_BASE": "8s", "RETRY_CEILING": "8s"})
        broken = await world.add_agent(slots=2, settings={"STORAGE": str(bad)})
        package = "s3://bucket/package.tar.gz"
        jobs = [await world.submit(world.task("cat word", package=package)) for _ in range(8)]
        await world.until_node(broken, NodeState.QUARANTINED)
        await world.add_agent(slots=2, settings={"STORAGE": str(good)})
        spent = []
        for job in jobs:
            assert (await world.wait(job)).state is JobState.SUCCEEDED
            spent += [one for one in await world.attempts(job) if one.node_name == broken.name]
        failed = [one for one in spent if one.failure is FailureKind.INFRA_PREPARE]
        assert 5 <= len(failed) <= 6, "two slots: one may be on its way when the fifth fails"
        (node,) = [node for node in await world.client.nodes() if node.name == broken.name]
        assert (node.state, "could not prepare" in node.reason) == (NodeState.QUARANTINED, True)
        await world.client.resume_node(broken.name)
        await world.until_node(broken, NodeState.READY)


def _buckets(world: World) -> Path:
    root = world.directory / "buckets"
    (root / "bucket").mkdir(parents=True)
    word = world.directory / "word"
    word.write_text("word")
    with tarfile.open(root / "bucket" / "package.tar.gz", "w:gz") as archive:
        archive.add(word, "word")
    return root


@scenario("L11", quick=False)
async def test_l11_many_loud_commands_cost_no_lease_and_no_result(
    world: World, profile: FaultProfile
) -> None:
    await world.start(agents=2, slots=4)
    loud = await world.submit(
        world.task("head -c 20000000 /dev/zero | tr '\\0' x; sleep 1", instances=profile.of(quick=8, full=40))
    )
    quiet = await world.submit("true", priority=1)
    assert (await world.wait(quiet)).state is JobState.SUCCEEDED
    assert (await world.wait(loud, within_s=250)).state is JobState.SUCCEEDED
    for instance in await world.instances(loud):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
        assert instance.attempts[-1].stdout_bytes == 20_000_000
    assert "node.silent" not in world.coordinator.said
    await _forget_all(world)


@scenario("L12", quick=False)
async def test_l12_one_instance_wakes_one_of_many_waiting_nodes(world: World, profile: FaultProfile) -> None:
    """Of nodes that all have room one gets it, once; the fleet of `benchmarks` does it with thousands."""
    await world.start(agents=profile.of(quick=3, full=8), slots=4)
    for _ in range(profile.of(quick=5, full=50)):
        job = await world.submit("true")
        assert (await world.wait(job)).state is JobState.SUCCEEDED
        (attempt,) = await world.attempts(job)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(world.ledger.starts(job)) == 1


@scenario("L13", quick=False, limit_s=900)
async def test_l13_a_page_of_a_million_finished_jobs_costs_as_much_as_of_a_few(world: World) -> None:
    await world.start(agents=0)
    for number in range(200):
        await world.stop(await world.submit("true", name=f"job {number}"))
    loop = asyncio.get_running_loop()

    async def page_s() -> float:
        begun = loop.time()
        assert len(await _newest(world, 100)) == 100
        return loop.time() - begun

    await page_s()
    few_s = min([await page_s() for _ in range(5)])
    world.coordinator.terminate()
    _multiply_jobs(world.coordinator.database, to=1_000_000)
    world.forget_history()
    world.coordinator.start()
    await page_s()
    before = world.coordinator.usage().memory_bytes
    many_s = min([await page_s() for _ in range(5)])
    assert many_s < 5 * few_s + 0.05
    found = [job async for job in world.client.list(name_contains="job 199 copy 4999")]
    assert len(found) == 1
    assert world.coordinator.usage().memory_bytes < before + (64 << 20)


async def _newest(world: World, count: int) -> list[str]:
    """The first page of the listing."""
    found: list[str] = []
    async for job in world.client.list():
        found.append(job.job_id)
        if len(found) == count:
            break
    return found


def _multiply_jobs(database: Path, *, to: int) -> None:
    """More finished jobs, as rows."""
    with closing(sqlite3.connect(database)) as db:
        columns = [
            row[1]
            for row in db.execute("PRAGMA table_info(jobs)")
            if row[1] not in ("job_key", "job_id", "name")
        ]
        keys = [row[0] for row in db.execute("SELECT job_key FROM jobs")]
        names = ", ".join(columns)
        db.execute(
            f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO jobs (job_id, name, {names})
                SELECT job_id || '-' || i, name || ' copy ' || i, {names} FROM jobs, n""",
            (to // len(keys),),
        )
        db.commit()


@scenario("L14", quick=False)
async def test_l14_a_coordinator_that_stood_still_holds_it_against_nobody(world: World) -> None:
    await world.start(slots=2)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_started(job)
    world.coordinator.pause()
    await world.lasts(2 * SILENT_AFTER_S)
    world.coordinator.resume()
    await world.until(lambda: "coordinator.stalled" in world.coordinator.said)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [attempt.state for attempt in await world.attempts(job)] == [AttemptState.SUCCEEDED]
    assert "node.silent" not in world.coordinator.said
    (node,) = await world.client.nodes()
    assert node.state is NodeState.READY


@scenario("L15", quick=False, limit_s=1200)
async def test_l15_a_long_run_leaves_memory_descriptors_threads_and_database_log_flat(
    world: World, profile: FaultProfile
) -> None:
    await world.start(agents=2, slots=2)
    loop = asyncio.get_running_loop()

    async def work_for(seconds: float) -> None:
        until = loop.time() + seconds
        while loop.time() < until:
            job = await world.submit(world.task("echo x", instances=20))
            assert (await world.wait(job)).state is JobState.SUCCEEDED

    await work_for(30)  # caches fill
    world.measure()
    before = _sizes(world)
    await work_for(profile.of(quick=30, full=300))
    after = _sizes(world)
    for what, size in after.items():
        assert size <= 1.5 * before[what] + 10, (what, before, after)
    await _forget_all(world)


async def _forget_all(world: World) -> None:
    """The log store keeps the streams that were written last open, up to its bound; of deleted jobs none."""
    await world.until(lambda: not any(agent.attempts() for agent in world.agents))
    for job in [job.job_id async for job in world.client.list()]:
        await world.client.delete(job)
    logs = world.coordinator.data / "logs"
    while left := len(os.listdir(logs)):  # thousands: it takes as long as it gets on
        await world.until(partial(_has_fewer, logs, than=left))


def _has_fewer(directory: Path, *, than: int) -> bool:
    return len(os.listdir(directory)) < than


def _sizes(world: World) -> dict[str, float]:
    pid = world.coordinator.pid
    wal = world.coordinator.database.with_name(world.coordinator.database.name + "-wal")
    return {
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "write-ahead log, MiB": wal.stat().st_size / (1 << 20) if wal.exists() else 0,
        "memory, MiB": world.coordinator.usage().memory_bytes / (1 << 20),
    }


@scenario("L16", limit_s=1200)
async def test_l16_many_submits_with_one_key_at_once_make_one_job(
    world: World, profile: FaultProfile
) -> None:
    await world.start(agents=0)
    spec = world.job("true")
    async with world.new_client(patience=timedelta(minutes=4)) as client:
        asked = [
            client.submit(spec, idempotency_key="key") for _ in range(profile.of(quick=200, full=10_000))
        ]
        assert len(set(await asyncio.gather(*asked))) == 1
    assert len([job async for job in world.client.list()]) == 1
