"""Outputs on their way to their final names, over a real S3 server and the coordinator's own verbs: whole, or
not at all, whatever is interrupted where."""

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from threading import Event

import pytest
from botocore.client import BaseClient

from tests.support.output_attempts import OutputWorld
from windlass_agent.runner.steps.outputs import store_results
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto import failpoints
from windlass_proto.model.specs import LogMapping, OutputMapping
from windlass_proto.model.states import LogStream

FAILPOINTS = (
    "agent.outputs.after_send",
    "agent.outputs.before_commit",
    "agent.outputs.after_commit",
    "agent.outputs.after_copy",
    "agent.outputs.before_compare",
    "agent.outputs.after_compare",
    "agent.outputs.after_manifest",
    "agent.outputs.after_clear",
)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def test_outputs_get_their_names_a_manifest_and_leave_no_staging(world: OutputWorld) -> None:
    attempt = world.attempt().writes(**{"a.txt": "a", "deep__er__b": "", "big": os.urandom(20 << 20)})
    await attempt.finalizes()
    found = world.published()
    assert {name: len(data) for name, data in found.items()} == {"a.txt": 1, "deep/er/b": 0, "big": 20 << 20}
    assert found["big"] == (attempt.folders.work / "out/big").read_bytes()
    assert world.published("results.windlass-staging") == {}
    told = json.loads(world.manifest())
    (output,) = told["outputs"]
    assert (told["index"], told["attempt"], output["destination"]) == (0, 1, world.url)
    assert {one["name"]: (one["bytes"], one["sha256"], one["md5"]) for one in output["files"]} == {
        name: (len(data), hashlib.sha256(data).hexdigest(), md5(data)) for name, data in found.items()
    }
    assert world.recorded == (1, hashlib.sha256(world.manifest()).hexdigest())


async def test_each_file_takes_two_requests_and_all_of_them_five_more(
    world: OutputWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    really_ask = BaseClient._make_api_call  # type: ignore[attr-defined]  # where every request comes through

    def ask(client: BaseClient, operation: str, arguments: object) -> object:
        asked[operation] += 1
        return really_ask(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", ask)
    attempt = world.attempt().writes(**{f"{number:03}": str(number) for number in range(50)})
    await attempt.finalizes()
    of_files = {"PutObject": 50, "CopyObject": 50}
    of_all = {"PutObject": 1, "ListObjectsV2": 2, "DeleteObjects": 1, "ListMultipartUploads": 1}
    assert asked == Counter(of_files) + Counter(of_all)
    assert len(world.published()) == 50


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_an_agent_that_is_killed_anywhere_goes_on_where_it_was(
    world: OutputWorld, failpoint: str
) -> None:
    attempt = world.attempt().writes(a="a", b="b", c="c")
    await attempt.is_killed_at(failpoint)
    await attempt.finalizes()
    assert world.published() == {"a": b"a", "b": b"b", "c": b"c"}
    assert world.published("results.windlass-staging") == {}
    assert world.recorded == (1, hashlib.sha256(world.manifest()).hexdigest())


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_nothing_of_a_lost_attempt_stays_when_the_next_has_published(
    world: OutputWorld, failpoint: str
) -> None:
    lost = world.attempt().writes(same="same", other="first", only_of_first="x")
    await lost.is_killed_at(failpoint, nth=2 if failpoint == "agent.outputs.after_copy" else 1)
    world.lose(lost)
    await world.attempt().writes(same="same", other="second").finalizes()
    expected = {"same": b"same", "other": b"second"}
    assert world.published() == expected
    _, failure = await lost.tries()
    assert "the instance is not this attempt's any more" in failure
    assert world.published() == expected
    assert world.recorded == (2, hashlib.sha256(world.manifest()).hexdigest())


async def test_a_third_attempt_removes_what_the_first_published_and_the_second_did_not_come_to(
    world: OutputWorld,
) -> None:
    first = world.attempt().writes(of_first="1", of_all="1")
    await first.is_killed_at("agent.outputs.before_compare")
    world.lose(first)
    second = world.attempt().writes(of_second="2", of_all="2")
    await second.is_killed_at("agent.outputs.after_commit")
    world.lose(second)
    await world.attempt().writes(of_all="3").finalizes()
    assert world.published() == {"of_all": b"3"}
    assert world.published("results.windlass-staging") == {}


async def test_nothing_more_is_published_once_the_lease_is_over(world: OutputWorld) -> None:
    attempt = world.attempt().writes(**{f"{number:03}": str(number) for number in range(30)})
    attempt.checks_left = 5
    context, failure = await attempt.tries(failed=True)
    assert (failure, context.note) == ("the lease is over", "")
    assert len(world.published()) <= 5
    attempt.checks_left = 1_000
    await attempt.finalizes()
    assert len(world.published()) == 30


@pytest.mark.parametrize("change", ["other!", "longer than before", None])
async def test_what_the_store_has_in_the_end_is_compared_with_what_was_sent(
    world: OutputWorld, change: str | None
) -> None:
    attempt = world.attempt(failed=True).writes(a="before", b="b")
    victim = f"{world.bucket}/results/a"

    def spoil(reached: str) -> None:
        if reached == "agent.outputs.before_compare":
            world.s3.remove(victim)
            if change is not None:
                world.s3.put(victim, change)
            time.sleep(0.3)  # the server looks at its disk every 100 ms

    failpoints.install(spoil)
    try:
        _, failure = await attempt.tries(failed=True)
    finally:
        failpoints.install(None)
    assert failure.startswith(f"{world.url}a: ")
    assert ("the store has" if change else "is not there") in failure
    await attempt.finalizes(failed=True)
    assert world.published() == {"a": b"before", "b": b"b"}


async def test_names_of_other_instances_in_the_same_directory_are_left_alone(world: OutputWorld) -> None:
    lost = world.attempt().writes(of_me="me", shared="of first")
    await lost.is_killed_at("agent.outputs.after_compare")
    world.lose(lost)
    world.s3.put(f"{world.bucket}/results/shared", "of somebody else")
    world.s3.put(f"{world.bucket}/results/theirs", "theirs")
    await world.attempt().writes(new="new").finalizes()
    assert world.published() == {"new": b"new", "shared": b"of somebody else", "theirs": b"theirs"}


async def test_what_is_no_regular_file_is_left_out_and_told(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="a")
    out = attempt.folders.work / "out"
    os.mkfifo(out / "fifo")
    (out / "link").symlink_to("/etc/passwd")
    (out / "dir").symlink_to("/etc")
    await attempt.finalizes()
    assert world.published() == {"a": b"a"}
    assert json.loads(world.manifest())["left_out"] == ["out/dir", "out/fifo", "out/link"]


async def test_a_link_in_the_place_of_the_output_directory_is_not_followed(world: OutputWorld) -> None:
    attempt = world.attempt()
    attempt.folders.work.mkdir(parents=True)
    (attempt.folders.work / "out").symlink_to("/etc")
    _, failure = await attempt.tries()
    assert "the output directory 'out' cannot be read" in failure
    assert world.published() == {}


async def test_a_name_that_is_not_utf8_is_refused_by_name(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="a")
    Path(os.fsdecode(os.fsencode(attempt.folders.work / "out") + b"/\xff")).write_bytes(b"x")
    _, failure = await attempt.tries()
    assert r"'\udcff' has a name that is not UTF-8" in failure


async def test_two_directories_may_go_to_one_place_but_not_two_files_to_one_name(world: OutputWorld) -> None:
    both = tuple(OutputMapping(source=name, destination=world.url) for name in ("out", "more"))
    attempt = world.attempt().writes(a="a")
    (attempt.folders.work / "more").mkdir()
    (attempt.folders.work / "more/b").write_text("b")
    await attempt.finalizes(outputs=both)
    assert world.published() == {"a": b"a", "b": b"b"}
    (attempt.folders.work / "more/a").write_text("other")
    _, failure = await attempt.tries(outputs=both)
    assert "two output files want to be" in failure


async def test_a_file_that_was_written_since_it_was_sent_is_sent_again(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="before", b="b")
    await attempt.is_killed_at("agent.outputs.before_commit")
    attempt.writes(a="after!")
    await attempt.finalizes()
    assert world.published() == {"a": b"after!", "b": b"b"}


async def test_staged_objects_that_somebody_removed_are_sent_again(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="a", b="b")
    await attempt.is_killed_at("agent.outputs.after_commit")
    staging = f"{world.bucket}/results.windlass-staging"
    for name in world.s3.objects(staging):
        if name.endswith("/a"):
            world.s3.remove(f"{staging}/{name}")
    await asyncio.sleep(0.2)  # the server looks at its disk every 100 ms
    await attempt.finalizes()
    assert world.published() == {"a": b"a", "b": b"b"}


async def test_an_upload_waits_for_its_bucket(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="a")
    world.s3.remove_bucket(world.bucket)
    context = attempt.context()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        storing = group.create_task(store_results(context, attempt.spools(), with_directories=True))
        while not context.trouble:
            await asyncio.sleep(0.01)
        world.s3.make_bucket(world.bucket)
    assert storing.result() is None
    assert world.published() == {"a": b"a"}


async def test_a_failed_command_is_not_waited_for_long(world: OutputWorld) -> None:
    attempt = world.attempt(failed=True).writes(a="a")
    world.s3.remove_bucket(world.bucket)
    _, failure = await attempt.tries(failed=True)
    assert "NoSuchBucket" in failure


async def test_log_files_are_copied_out_and_a_missing_one_is_told(world: OutputWorld) -> None:
    attempt = world.attempt(failed=True).writes(a="half")
    (attempt.folders.work / "run.log").write_text("lines")
    (attempt.folders.work / "secret.log").symlink_to("/etc/passwd")
    logs = tuple(
        LogMapping(source=name, destination=f"oss://{world.bucket}/logs/")
        for name in ("run.log", "none.log", "secret.log")
    )
    context = await attempt.finalizes(failed=True, logs=logs)
    assert world.published("logs") == {"run.log": b"lines"}
    assert context.note == (
        "the log file none.log is not there, or no file; the log file secret.log is not there, or no file"
    )


async def test_a_stopped_upload_ends(world: OutputWorld) -> None:
    attempt = world.attempt().writes(a="a")
    context = attempt.context()
    context.cancelled = Event()
    context.cancelled.set()
    spools = {stream: OutputSpool(attempt.folders.root, stream) for stream in LogStream}
    failure = await store_results(context, spools, with_directories=True)
    assert failure is not None
    assert world.published() == {}
