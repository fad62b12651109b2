"""Hostile and broken packages, and addresses of packages that point elsewhere (F07-F11)."""

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support.archives import (
    COMPRESSIONS,
    HOSTILE_ZIPS,
    a_member,
    bomb_behind_the_end,
    crowded_zip,
    encrypted_zip,
    gzip_bomb,
    hostile_tars,
    overlapping_zip,
    tar_bytes,
    xz_of_huge_window,
    zip_bytes,
    zst_bomb,
    zst_of_huge_window,
)
from tests.support.raw_calls import raw_calls
from tests.support.s3_server import S3Server, s3_server
from tests.support.world import World
from windlass_proto import convert
from windlass_proto.errors import InvalidJob
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import AttemptState, JobState, NodeState
from windlass_proto.model.status import AttemptStatus
from windlass_proto.v1 import jobs_pb2

LIMIT_BYTES = 32 << 20
FEW = 4
"""Of the hostile ones in the quick profile; the unpacker itself is tried with all of them elsewhere."""


@dataclass
class Packages:
    """Archives in an object store, one task for each."""

    world: World
    store: S3Server

    async def try_all(self, archives: Mapping[str, bytes], **more: int) -> dict[str, list[AttemptStatus]]:
        """The attempts of each archive's task; none of them has come to its command."""
        for name, content in archives.items():
            (self.store.root / "bucket" / name).write_bytes(content)
        self.store.put("bucket/last", "")  # when it is shown, so are they
        tasks = [
            self.world.task(name=f"t{number}", package=f"oss://bucket/{name}", **more)
            for number, name in enumerate(archives)
        ]
        job = await self.world.submit(*tasks, fail_on_instance_failure=False)
        assert (await self.world.wait(job)).state is JobState.FAILED
        assert self.world.ledger.starts(job) == []
        found: dict[str, list[AttemptStatus]] = {}
        for number, name in enumerate(archives):
            attempts = await self.world.attempts(job, task=f"t{number}")
            found[name] = [one for one in attempts if one.state is not AttemptState.RELEASED]
        for name, attempts in found.items():
            kinds = {attempt.failure for attempt in attempts}
            assert kinds == {FailureKind.USER_CONFIG}, f"{name}: {[one.reason for one in attempts]}"
        return found

    async def good_one_runs(self) -> None:
        self.store.put("bucket/good.tar.zst", COMPRESSIONS["tar.zst"](tar_bytes(a_member("word"))))
        job = await self.world.submit(self.world.task("cat word", package="oss://bucket/good.tar.zst"))
        assert (await self.world.wait(job)).state is JobState.SUCCEEDED
        assert await self.world.log(job) == b"content"
        (agent,) = self.world.agents
        assert len(list(agent.state.glob("packages/objects/*"))) > 0
        assert [node.state for node in await self.world.client.nodes()] == [NodeState.READY]


@asynccontextmanager
async def packages(world: World, **settings: str) -> AsyncIterator[Packages]:
    root = world.directory / "buckets"
    (root / "bucket").mkdir(parents=True)
    limits = {"WORK_PACKAGE_LIMIT_BYTES": str(LIMIT_BYTES), **settings}
    with s3_server(root) as store:
        storage = store.storage_file(world.directory / "storage.toml")
        await world.start(agents=1, slots=4, agent_settings={"STORAGE": str(storage), **limits})
        yield Packages(world, store)


def planted(world: World) -> list[Path]:
    """What a hostile archive has brought about outside of its directory."""
    return [*world.directory.rglob("*evil*"), *Path("/tmp").glob("*windlass-evil*")]


@scenario("F07")
async def test_f07_hostile_tars_are_refused_by_their_members_name_and_leave_nothing(
    world: World, profile: FaultProfile
) -> None:
    async with packages(world) as tried:
        hostile = hostile_tars(f"{world.directory}/evil")
        names = profile.of(quick=list(hostile)[:FEW], full=list(hostile))
        kinds = list(COMPRESSIONS)
        archives, says = {}, {}
        for number, name in enumerate(names):
            kind = kinds[number % len(kinds)]
            archives[f"{number}.{kind}"] = COMPRESSIONS[kind](tar_bytes(a_member("first"), *hostile[name][0]))
            says[f"{number}.{kind}"] = hostile[name][1]
        found = await tried.try_all(archives)
        for name, attempts in found.items():
            assert [says[name] in attempt.reason for attempt in attempts] == [True], attempts
        assert planted(world) == []
        await tried.good_one_runs()


@scenario("F08")
async def test_f08_hostile_zips_stop_at_bytes_ratio_and_entries_with_the_disk_within_its_limit(
    world: World, profile: FaultProfile
) -> None:
    async with packages(world, WORK_PACKAGE_LIMIT_ENTRIES="1000") as tried:
        names = profile.of(quick=list(HOSTILE_ZIPS)[:1], full=list(HOSTILE_ZIPS))
        archives = {f"{number}.zip": zip_bytes(HOSTILE_ZIPS[name][0]) for number, name in enumerate(names)}
        archives["overlap.zip"] = overlapping_zip()
        archives["crowd.zip"] = crowded_zip(profile.of(quick=2_000, full=1_000_000), told=1)
        archives["zeros.zip"] = zip_bytes(("zeros", bytes(LIMIT_BYTES + 1), 0))
        found = await tried.try_all(archives)
        assert "shares its bytes" in found["overlap.zip"][0].reason
        assert "more than 1000 entries" in found["crowd.zip"][0].reason
        assert f"more than {LIMIT_BYTES} bytes" in found["zeros.zip"][0].reason
        assert planted(world) == []
        nested = zip_bytes(("inner.zip", zip_bytes(("bomb", bytes(8 << 20), 0)), 0))
        tried.store.put("bucket/nested.zip", nested)
        job = await world.submit(world.task("ls", package="oss://bucket/nested.zip"))
        assert (await world.wait(job)).state is JobState.SUCCEEDED
        assert await world.log(job) == b"inner.zip\n"  # what is inside an archive stays packed
        await tried.good_one_runs()


@scenario("F09")
async def test_f09_compressed_bombs_end_the_unpacker_and_never_the_agent(
    world: World, profile: FaultProfile
) -> None:
    async with packages(world, WORK_PACKAGE_LIMIT_ENTRIES="1000") as tried:
        await tried.good_one_runs()
        world.measure()
        (agent,) = world.agents
        before = agent.pid
        size = profile.of(quick=64 << 20, full=2 << 30)
        archives = {
            "bomb.tar.gz": gzip_bomb(size),
            "bomb.tar.zst": zst_bomb(size),
            "tail.tar.gz": bomb_behind_the_end(LIMIT_BYTES + (900 << 20 if profile.is_full else 8 << 20)),
            "window.tar.xz": xz_of_huge_window(),
            "window.tar.zst": zst_of_huge_window(),
        }
        found = await tried.try_all(archives)
        assert "memory" in found["window.tar.xz"][0].reason
        assert "memory" in found["window.tar.zst"][0].reason
        assert f"more than {LIMIT_BYTES} bytes" in found["bomb.tar.zst"][0].reason
        assert (agent.pid, agent.is_running) == (before, True)
        await tried.good_one_runs()


@scenario("F09", quick=False)
async def test_f09_what_is_much_larger_than_its_archive_ends_long_before_the_nodes_limit(
    world: World,
) -> None:
    async with packages(world, WORK_PACKAGE_LIMIT_BYTES=str(64 << 30)) as tried:
        found = await tried.try_all({"bomb.tar.gz": gzip_bomb(1 << 30)})
        assert f"more than {256 << 20} bytes" in found["bomb.tar.gz"][0].reason
        await tried.good_one_runs()


@scenario("F10")
async def test_f10_broken_archives_are_the_users_mistake_and_cost_only_the_retries_of_the_task(
    world: World, profile: FaultProfile
) -> None:
    async with packages(world) as tried:
        whole = tar_bytes(a_member("a", content=bytes(range(256)) * 400))
        kinds = profile.of(quick=["tar.gz", "tar.zst"], full=list(COMPRESSIONS))
        archives = {f"short.{kind}": COMPRESSIONS[kind](whole)[:-600] for kind in kinds if kind != "tar"}
        archives |= {
            f"half.{kind}": COMPRESSIONS[kind](whole)[: 40 if kind != "tar" else 9000] for kind in kinds
        }
        archives |= {
            "empty.tar.gz": b"",
            "page.zip": b"<html>not found</html>",
            "locked.zip": encrypted_zip(),
        }
        found = await tried.try_all(archives, max_retries=1)
        assert {name: len(attempts) for name, attempts in found.items()} == dict.fromkeys(archives, 2)
        assert "is encrypted" in found["locked.zip"][0].reason
        assert "is empty" in found["empty.tar.gz"][0].reason
        tried.store.put("bucket/a-zip.tar.gz", zip_bytes(("word", b"content", 0)))
        job = await world.submit(world.task("cat word", package="oss://bucket/a-zip.tar.gz"))
        assert (await world.wait(job)).state is JobState.SUCCEEDED  # told by its content, not by its name
        await tried.good_one_runs()


ELSEWHERE = [
    "file:///etc/passwd.tar.gz",
    "http://169.254.169.254/latest/meta-data.tar.gz",
    "https://100.100.100.200/latest/meta-data.zip",
    "//169.254.169.254/x.zip",
    "oss://reader:hunter2secret@bucket/p.tar.gz",
    "http://reader:hunter2secret@store.example.com/p.tar.gz",
    "s3://hunter2secret@bucket/p.tar.gz",
]


@scenario("F11")
async def test_f11_packages_elsewhere_than_in_a_store_are_refused_and_credentials_are_nowhere(
    world: World,
) -> None:
    await world.start(agents=1)
    for url in ELSEWHERE:
        spec = JobSpec(
            name="job", tasks=(TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), package=url),)
        )
        request = jobs_pb2.SubmitJobRequest(spec=convert.job_spec_to_wire(spec)).SerializeToString()
        async with raw_calls(world) as calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await calls.ask("/windlass.v1.JobService/SubmitJob", request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "package" in (refused.value.details() or "")
        assert "hunter2secret" not in f"{refused.value.details()}{refused.value.debug_error_string()}"
        with pytest.raises(InvalidJob) as told:
            await world.client.submit(spec)
        assert "hunter2secret" not in str(told.value)
    holding = [
        path for path in world.directory.rglob("*") if path.is_file() and b"hunter2s" in path.read_bytes()
    ]
    assert holding == []


@dataclass
class Redirecting:
    """A store that sends whoever asks to an address of its own network."""

    target: str
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(307 if outer.target else 200)
                if outer.target:
                    self.send_header("Location", f"{outer.target}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815  (its name)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


@scenario("F11", quick=False)
async def test_f11_a_store_that_redirects_is_not_followed(world: World) -> None:
    inner = Redirecting("")
    with inner.serving() as private, Redirecting(private).serving() as store:
        storage = world.directory / "storage.toml"
        storage.write_text(
            '[schemes]\noss = "own"\n[profiles.own]\n'
            f'endpoint = "{store}"\naccess_key = "k"\nsecret_key = "s"\n'
        )
        await world.start(agents=1, agent_settings={"STORAGE": str(storage)})
        job: JobId = await world.submit(world.task(package="oss://bucket/p.tar.gz"))

        async def has_failed() -> bool:
            return any(one.failure is not None for one in await world.attempts(job))

        await world.until(has_failed)
        await world.stop(job)
        await world.wait(job)
        assert world.ledger.starts(job) == []
        assert inner.asked == []
        assert all("not followed" in one.reason for one in await world.attempts(job) if one.failure)


@scenario("F07", quick=False)
async def test_f07_two_unpackers_killed_with_their_agent_leave_no_process_and_the_next_one_goes_on(
    world: World,
) -> None:
    async with packages(world, WORK_PACKAGE_LIMIT_BYTES=str(8 << 30)) as tried:
        files = [a_member(f"f{number}", content=bytes(1 << 20)) for number in range(200)]
        tried.store.put("bucket/large.tar.gz", COMPRESSIONS["tar.gz"](tar_bytes(*files)))
        job = await world.submit(world.task("ls | wc -l", package="oss://bucket/large.tar.gz", instances=2))
        (agent,) = world.agents
        await world.until(lambda: len(list(agent.state.glob("attempts/*/work/f1"))) > 0)
        agent.kill()
        if list(agent.state.glob("attempts/*/work/f199")):
            raise NotRun("this machine has unpacked 200 MiB before its agent could be killed")
        await asyncio.to_thread(agent.start_again)
        assert (await world.wait(job)).state is JobState.SUCCEEDED
        for index in (0, 1):
            assert (await world.log(job, index)).strip() == b"200"
