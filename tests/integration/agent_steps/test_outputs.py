"""Outputs on their way to their final names, over a real S3 server and the coordinator's own verbs: whole, or
not at all, whatever is interrupted where."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from tests.support.builders import Machine, a_job, a_task, exits
from tests.support.coordinator import InMemoryCoordinator
from tests.support.s3_server import S3Server
from windlass_agent.core.mount_plan import plan_mounts
from windlass_agent.core.output_gate import Grant, LeaseOver, Wish
from windlass_agent.mounts import Storages
from windlass_agent.mounts.copied_inputs import CopiedInputs
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepSettings
from windlass_agent.runner.steps.outputs import store_results
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto import failpoints
from windlass_proto.model.events import Started
from windlass_proto.model.ids import AttemptRef, JobId, TaskName
from windlass_proto.model.specs import Argv, LogMapping, OutputMapping, TaskSpec
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
LATER = timedelta(hours=1)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Killed(BaseException):
    """The agent ends here, as far as the attempt can tell."""


class World:
    """A coordinator with one instance, and the directories of its attempts."""

    def __init__(self, coordinator: InMemoryCoordinator, s3: S3Server, directory: Path) -> None:
        self.coordinator, self.s3, self.directory = coordinator, s3, directory
        self.bucket = f"b{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}"
        (s3.root / self.bucket).mkdir()
        self.job_id = coordinator.submit(a_job(a_task(max_retries=3)))
        self.url = f"oss://{self.bucket}/results/"

    def attempt(self, *, failed: bool = False) -> "Attempt":
        """The next one of the instance; its command has ended."""
        node = self.coordinator.node()
        self.coordinator.later(timedelta(hours=1))
        self.coordinator.ready_due()
        ref = self.coordinator.claim_one(node)
        self.coordinator.report(node, ref, Started(), *(() if failed else (exits(finalizing=True),)))
        return Attempt(self, node, ref)

    def lose(self, attempt: "Attempt") -> None:
        self.coordinator.mark_silent(attempt.node)
        self.coordinator.replace(attempt.node)
        self.coordinator.open_session(attempt.node)

    def published(self, below: str = "results") -> dict[str, bytes]:
        top = self.s3.root / self.bucket / below
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    @property
    def recorded(self) -> tuple[int, str]:
        ((attempt, digest),) = self.coordinator.rows("SELECT attempt, manifest_digest FROM published")
        return int(attempt), str(digest)

    def manifest(self) -> bytes:
        (data,) = self.published("results.windlass-manifests").values()
        return data


class Attempt:
    """One attempt, and what it asks the coordinator; implements `OutputGate`."""

    def __init__(self, world: World, node: Machine, ref: AttemptRef) -> None:
        self.world, self.node, self.ref = world, node, ref
        self.folders = AttemptFolders(root=world.directory / str(ref.attempt))
        self.checks_left = 1_000_000
        """Requests until the lease is over."""

    def writes(self, **files: bytes | str) -> "Attempt":
        for name, content in files.items():
            path = self.folders.work / "out" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    async def held(self) -> None:
        return

    def check(self) -> None:
        self.checks_left -= 1
        if self.checks_left < 0:
            raise LeaseOver("the lease is over")

    async def commit(self, wish: Wish) -> Grant:
        commit = self.world.coordinator.commit_outputs(
            self.node, wish.ref, digest=wish.manifest_digest, of_failed_command=wish.of_failed_command
        )
        verdict = commit.verdict
        return Grant(granted=verdict.granted, reason=verdict.reason, supersedes=commit.supersedes)

    def context(self, **spec: object) -> StepContext:
        """As a newly started agent makes it."""
        fields: dict[str, object] = {
            "outputs": (OutputMapping(source="out", destination=self.world.url),)
        } | spec
        task = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), **fields)  # type: ignore[arg-type]  # by name
        root = self.folders
        return StepContext(
            ref=self.ref,
            job_id=JobId("job"),
            spec=task,
            folders=root,
            storages=Storages(self.world.s3.profiles(), threads=4),
            mounter=CopiedInputs("there are none", local=LocalDirectories([])),
            gate=self,
            settings=StepSettings(
                package_limit_bytes=1,
                package_limit_entries=1,
                package_limit_ratio=1,
                package_timeout=LATER,
                mount_timeout=LATER,
                upload_timeout=LATER,
            ),
            mounts=plan_mounts(
                task, work=root.work, mounts=root.mounts, own=self.world.directory, may_bind=False
            ),
        )

    async def finalizes(self, *, failed: bool = False, **spec: object) -> StepContext:
        """All goes well, or the assertion says why not."""
        context, failure = await self.tries(failed=failed, **spec)
        assert failure == "", failure
        return context

    async def tries(self, *, failed: bool = False, **spec: object) -> tuple[StepContext, str]:
        context = self.context(**spec)
        context.has_failed = failed
        self.folders.work.mkdir(parents=True, exist_ok=True)
        spools = {stream: OutputSpool(self.folders.root, stream) for stream in LogStream}
        async with asyncio.timeout(60):
            failure = await store_results(context, spools, with_directories=True)
        return context, failure.reason if failure else ""

    async def is_killed_at(self, name: str, nth: int = 1) -> None:
        left = nth

        def hook(reached: str) -> None:
            nonlocal left
            left -= reached == name
            if reached == name and left == 0:
                raise Killed

        failpoints.install(hook)
        try:
            with pytest.raises(Killed):
                await self.finalizes()
        finally:
            failpoints.install(None)


@pytest.fixture
def world(s3: S3Server, tmp_path: Path) -> Iterator[World]:
    with InMemoryCoordinator() as coordinator:
        yield World(coordinator, s3, tmp_path)


async def test_outputs_get_their_names_a_manifest_and_leave_no_staging(world: World) -> None:
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


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_an_agent_that_is_killed_anywhere_goes_on_where_it_was(world: World, failpoint: str) -> None:
    attempt = world.attempt().writes(a="a", b="b", c="c")
    await attempt.is_killed_at(failpoint)
    await attempt.finalizes()
    assert world.published() == {"a": b"a", "b": b"b", "c": b"c"}
    assert world.published("results.windlass-staging") == {}
    assert world.recorded == (1, hashlib.sha256(world.manifest()).hexdigest())


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_nothing_of_a_lost_attempt_stays_when_the_next_has_published(
    world: World, failpoint: str
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
    world: World,
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


async def test_nothing_more_is_published_once_the_lease_is_over(world: World) -> None:
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
    world: World, change: str | None
) -> None:
    attempt = world.attempt(failed=True).writes(a="before", b="b")
    victim = world.s3.root / world.bucket / "results/a"

    def spoil(reached: str) -> None:
        if reached == "agent.outputs.before_compare":
            victim.unlink()
            if change is not None:
                victim.write_text(change)
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


async def test_names_of_other_instances_in_the_same_directory_are_left_alone(world: World) -> None:
    lost = world.attempt().writes(of_me="me", shared="of first")
    await lost.is_killed_at("agent.outputs.after_compare")
    world.lose(lost)
    world.s3.put(f"{world.bucket}/results/shared", "of somebody else")
    world.s3.put(f"{world.bucket}/results/theirs", "theirs")
    await world.attempt().writes(new="new").finalizes()
    assert world.published() == {"new": b"new", "shared": b"of somebody else", "theirs": b"theirs"}


async def test_what_is_no_regular_file_is_left_out_and_told(world: World) -> None:
    attempt = world.attempt().writes(a="a")
    out = attempt.folders.work / "out"
    os.mkfifo(out / "fifo")
    (out / "link").symlink_to("/etc/passwd")
    (out / "dir").symlink_to("/etc")
    await attempt.finalizes()
    assert world.published() == {"a": b"a"}
    assert json.loads(world.manifest())["left_out"] == ["out/dir", "out/fifo", "out/link"]


async def test_a_link_in_the_place_of_the_output_directory_is_not_followed(world: World) -> None:
    attempt = world.attempt()
    attempt.folders.work.mkdir(parents=True)
    (attempt.folders.work / "out").symlink_to("/etc")
    _, failure = await attempt.tries()
    assert "the output directory 'out' cannot be read" in failure
    assert world.published() == {}


async def test_a_name_that_is_not_utf8_is_refused_by_name(world: World) -> None:
    attempt = world.attempt().writes(a="a")
    Path(os.fsdecode(os.fsencode(attempt.folders.work / "out") + b"/\xff")).write_bytes(b"x")
    _, failure = await attempt.tries()
    assert r"'\udcff' has a name that is not UTF-8" in failure


async def test_two_directories_may_go_to_one_place_but_not_two_files_to_one_name(world: World) -> None:
    both = tuple(OutputMapping(source=name, destination=world.url) for name in ("out", "more"))
    attempt = world.attempt().writes(a="a")
    (attempt.folders.work / "more").mkdir()
    (attempt.folders.work / "more/b").write_text("b")
    await attempt.finalizes(outputs=both)
    assert world.published() == {"a": b"a", "b": b"b"}
    (attempt.folders.work / "more/a").write_text("other")
    _, failure = await attempt.tries(outputs=both)
    assert "two output files want to be" in failure


async def test_a_file_that_was_written_since_it_was_sent_is_sent_again(world: World) -> None:
    attempt = world.attempt().writes(a="before", b="b")
    await attempt.is_killed_at("agent.outputs.before_commit")
    attempt.writes(a="after!")
    await attempt.finalizes()
    assert world.published() == {"a": b"after!", "b": b"b"}


async def test_staged_objects_that_somebody_removed_are_sent_again(world: World) -> None:
    attempt = world.attempt().writes(a="a", b="b")
    await attempt.is_killed_at("agent.outputs.after_commit")
    for path in (world.s3.root / world.bucket / "results.windlass-staging").rglob("a"):
        path.unlink()
    await asyncio.sleep(0.2)  # the server looks at its disk every 100 ms
    await attempt.finalizes()
    assert world.published() == {"a": b"a", "b": b"b"}


async def test_an_upload_waits_for_its_bucket(world: World) -> None:
    attempt = world.attempt().writes(a="a")
    bucket = world.s3.root / world.bucket
    bucket.rmdir()
    async with asyncio.TaskGroup() as group:
        finalizing = group.create_task(attempt.finalizes())
        await asyncio.sleep(0)
        while not finalizing.done() and not (made := bucket.exists()):
            await asyncio.sleep(0.5)
            bucket.mkdir()
        assert made or bucket.exists()
    assert world.published() == {"a": b"a"}


async def test_a_failed_command_is_not_waited_for_long(world: World) -> None:
    attempt = world.attempt(failed=True).writes(a="a")
    (world.s3.root / world.bucket).rmdir()
    _, failure = await attempt.tries(failed=True)
    assert "NoSuchBucket" in failure


async def test_log_files_are_copied_out_and_a_missing_one_is_told(world: World) -> None:
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


async def test_a_stopped_upload_ends(world: World) -> None:
    attempt = world.attempt().writes(a="a")
    context = attempt.context()
    context.cancelled = Event()
    context.cancelled.set()
    spools = {stream: OutputSpool(attempt.folders.root, stream) for stream in LogStream}
    failure = await store_results(context, spools, with_directories=True)
    assert failure is not None
    assert world.published() == {}
