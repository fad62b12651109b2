"""E: outputs whose store fails, whose agent dies, whose node is cut off: whole, or not there."""

import asyncio
import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.chaos_proxy import chaos_proxy
from tests.support.s3_server import S3Server, s3_server
from tests.support.world import World
from windlass_agent.mounts.s3_sending import PART_BYTES
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.specs import LogMapping, OutputMapping
from windlass_proto.model.states import AttemptState, JobState

TO_RESULTS = (OutputMapping(source="out", destination="oss://bucket/results/"),)
WRITE = "for i in 1 2 3; do echo $WINDLASS_INDEX.$i > out/$WINDLASS_INDEX.$i; done; echo log > run.log"
FAILPOINTS = (
    "agent.outputs.after_send:2",
    "agent.outputs.before_commit",
    "agent.outputs.after_commit",
    "agent.outputs.after_copy:2",
    "agent.outputs.before_compare",
    "agent.outputs.after_compare",
    "agent.outputs.after_manifest",
    "agent.outputs.after_clear",
    "agent.exit.before_report",
)
QUICK = ("agent.outputs.after_copy:2",)


def a_store(world: World) -> tuple[S3Server, dict[str, str]]:
    """An object store, and the agents' setting for it; not below what the world looks through at its end."""
    root = Path(world.stack.enter_context(tempfile.TemporaryDirectory(prefix="buckets-")))
    (root / "bucket").mkdir()
    store = world.stack.enter_context(s3_server(root))
    return store, {"STORAGE": str(store.storage_file(world.directory / "storage.toml"))}


def in_bucket(store: S3Server, below: str) -> dict[str, bytes]:
    top = store.root / "bucket" / below
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def expected(instances: int) -> dict[str, bytes]:
    return {f"{i}.{k}": f"{i}.{k}\n".encode() for i in range(instances) for k in (1, 2, 3)}


def check_published(world: World, store: S3Server, *, attempts: dict[int, int]) -> None:
    """The store has what the manifests say, they are those that were granted, and nothing else is left."""
    manifests = in_bucket(store, "results.windlass-manifests")
    assert {path.rpartition("/")[2] for path in manifests} == {f"{index}.json" for index in attempts}
    with world.read_rows() as rows:
        granted = {
            (index, attempt): digest
            for index, attempt, digest in rows("SELECT idx, attempt, manifest_digest FROM published")
        }
    there = in_bucket(store, "results")
    for data in manifests.values():
        told = json.loads(data)
        assert attempts[told["index"]] == told["attempt"], "I12"
        assert granted[told["index"], told["attempt"]] == hashlib.sha256(data).hexdigest(), "I12"
        for file in told["outputs"][0]["files"]:
            assert hashlib.sha256(there[file["name"]]).hexdigest() == file["sha256"]
    assert in_bucket(store, "results.windlass-staging") == {}


@scenario("E07")
async def test_e07_a_bucket_that_vanishes_is_tried_until_the_deadline_and_never_a_success(
    world: World,
) -> None:
    store, settings = a_store(world)
    await world.start(agent_settings=settings)
    gate = world.gate()
    job = await world.submit(
        world.task(f"{WRITE}; {gate.wait}", outputs=TO_RESULTS, upload_timeout=timedelta(seconds=8))
    )
    await world.until_started(job)
    shutil.rmtree(store.root / "bucket")
    gate.open()
    assert (await world.wait(job)).state is JobState.FAILED
    (attempt,) = await world.attempts(job)
    assert (attempt.state, attempt.failure) == (AttemptState.FAILED, FailureKind.OUTPUT)
    assert "not done within 8 s (upload_timeout)" in attempt.reason
    assert "NoSuchBucket" in attempt.reason
    assert world.agents[0].said.count("outputs.failed") >= 2


@scenario("E07")
async def test_e07_a_bucket_that_comes_back_gets_everything(world: World) -> None:
    store, settings = a_store(world)
    await world.start(agent_settings=settings)
    gate = world.gate()
    job = await world.submit(world.task(f"{WRITE}; {gate.wait}", outputs=TO_RESULTS))
    await world.until_started(job)
    shutil.rmtree(store.root / "bucket")
    gate.open()
    await world.until(lambda: "outputs.failed" in world.agents[0].said)
    (store.root / "bucket").mkdir()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert in_bucket(store, "results") == expected(1)
    check_published(world, store, attempts={0: 1})


@scenario("E08")
@pytest.mark.parametrize("failpoint", QUICK)
async def test_e08_an_agent_killed_at_a_step_of_its_upload_goes_on_there(
    world: World, failpoint: str
) -> None:
    await _killed_at(world, failpoint)


@scenario("E08", quick=False)
@pytest.mark.parametrize("failpoint", [one for one in FAILPOINTS if one not in QUICK])
async def test_e08_an_agent_killed_at_any_step_of_its_upload_goes_on_there(
    world: World, failpoint: str
) -> None:
    await _killed_at(world, failpoint)


async def _killed_at(world: World, failpoint: str) -> None:
    store, settings = a_store(world)
    # However slow the machine is: a new agent, not a new attempt.
    await world.start(agents=0, settings={"LEASE_REPLACE_AFTER": "120s"})
    agent = await world.add_agent(slots=2, settings=settings, failpoint=failpoint)
    job = await world.submit(
        world.task(
            WRITE,
            instances=2,
            outputs=TO_RESULTS,
            logs=(LogMapping(source="run.log", destination="oss://bucket/logs/"),),
        )
    )
    assert await asyncio.to_thread(agent.exit_code) == -9
    agent.start_again()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [len(one.attempts) for one in await world.instances(job)] == [1, 1]
    assert in_bucket(store, "results") == expected(2)
    assert in_bucket(store, "logs") == {"run.log": b"log\n"}
    check_published(world, store, attempts={0: 1, 1: 1})


@scenario("E08")
async def test_e08_an_agent_killed_in_a_large_file_sends_only_what_the_store_lacks(world: World) -> None:
    store, settings = a_store(world)
    way = world.stack.enter_context(chaos_proxy(store.endpoint.removeprefix("http://")))
    near = replace(store, endpoint=f"http://{way.address}")
    settings = {"STORAGE": str(near.storage_file(world.directory / "near.toml"))}
    await world.start(agents=0, settings={"LEASE_REPLACE_AFTER": "120s"})
    agent = await world.add_agent(slots=1, settings=settings, failpoint="agent.outputs.after_part:5")
    size = 100_000_000
    job = await world.submit(world.task(f"head -c {size} /dev/urandom > out/large", outputs=TO_RESULTS))
    assert await asyncio.to_thread(agent.exit_code) == -9
    before = way.up.passed_bytes
    agent.start_again()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    again = way.up.passed_bytes - before
    stored = 5 * PART_BYTES
    # Those that were on their way at the kill may be there or not.
    assert size - stored - 4 * PART_BYTES <= again <= size - stored + (1 << 20)
    assert [len(one.attempts) for one in await world.instances(job)] == [1]
    assert len(in_bucket(store, "results")["large"]) == size
    check_published(world, store, attempts={0: 1})


@scenario("E08", quick=False)
@pytest.mark.parametrize("failpoint", ["coord.outputs.before_commit", "coord.outputs.after_commit"])
async def test_e08_a_coordinator_killed_around_its_leave_is_asked_again(world: World, failpoint: str) -> None:
    store, settings = a_store(world)
    world.coordinator.settings |= {"LEASE_REPLACE_AFTER": "120s"}
    world.coordinator.start(failpoint=failpoint)
    await world.until_ready(await world.add_agent(slots=1, settings=settings))
    job = await world.submit(world.task(WRITE, outputs=TO_RESULTS))
    assert await asyncio.to_thread(world.coordinator.exit_code) == -9
    world.coordinator.start()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [one.state for one in await world.attempts(job)] == [AttemptState.SUCCEEDED]
    assert in_bucket(store, "results") == expected(1)
    check_published(world, store, attempts={0: 1})


@scenario("E08", quick=False)
async def test_e08_an_attempt_that_was_cut_off_while_it_published_mixes_nothing_in(
    world: World, profile: FaultProfile
) -> None:
    store, settings = a_store(world)
    await world.start(agents=0)
    proxy = world.stack.enter_context(chaos_proxy(world.coordinator.address))
    cut_off = await world.add_agent(slots=1, settings=settings, via=proxy.address)
    files = profile.of(quick=200, full=1000)
    write = f"for i in $(seq {files}); do echo $WINDLASS_ATTEMPT > out/$i.$((WINDLASS_ATTEMPT % 2 * i)); done"
    job = await world.submit(world.task(write, outputs=TO_RESULTS))
    await _until_staged(store)
    proxy.cut()
    await world.add_agent(slots=1, settings=settings)
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.SUCCEEDED)
    proxy.heal()
    await world.until(lambda: cut_off.said.count("session.opened") >= 2)
    await world.until(lambda: cut_off.attempts() == [])
    assert in_bucket(store, "results") == {f"{i}.0": b"2\n" for i in range(1, files + 1)}
    check_published(world, store, attempts={0: 2})


async def _until_staged(store: S3Server) -> None:
    async with asyncio.timeout(60):
        while not any((store.root / "bucket").glob("results.windlass-staging/**/*.*")):
            await asyncio.sleep(0.01)
