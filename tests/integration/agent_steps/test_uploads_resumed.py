"""Large files whose upload breaks: parts that the store has are not sent again, and none is left there."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import boto3
import pytest

from tests.support.chaos_proxy import ChaosProxy, chaos_proxy
from tests.support.gateway_store import GatewayStore
from tests.support.output_attempts import OutputAttempt, OutputWorld
from tests.support.s3_server import S3Server
from windlass_agent.mounts.s3_sending import PART_BYTES
from windlass_agent.runner.steps.outputs import store_results
from windlass_proto import failpoints

PARTS = 10
SIZE = (PARTS - 1) * PART_BYTES + 1_000
BESIDE_PARTS = 256 << 10
"""Of requests without contents, and heads of the others."""
STORED = "agent.outputs.after_part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """What a server says about unfinished uploads; asked directly."""

    s3: S3Server | GatewayStore
    bucket: str

    def begun(self) -> list[tuple[str, str]]:
        try:
            reply = self._client.list_multipart_uploads(Bucket=self.bucket)
        except self._client.exceptions.NoSuchUpload:  # what the server says when there was none ever
            return []
        return [(one["Key"], one["UploadId"]) for one in reply.get("Uploads", [])]

    def stored_bytes(self) -> int:
        ((key, upload_id),) = self.begun()
        parts = self._client.list_parts(Bucket=self.bucket, Key=key, UploadId=upload_id).get("Parts", [])
        return sum(one["Size"] for one in parts)

    def forget(self) -> None:
        for key, upload_id in self.begun():
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)

    @property
    def _client(self):  # type: ignore[no-untyped-def]  # boto3's, made at run time
        profile = self.s3.profile()
        return boto3.client(
            "s3",
            endpoint_url=self.s3.endpoint,
            region_name="us-east-1",
            aws_access_key_id=profile.access_key,
            aws_secret_access_key=profile.secret_key,
        )


@pytest.fixture
def uploads(world: OutputWorld) -> Uploads:
    return Uploads(s3=world.s3, bucket=world.bucket)


@pytest.fixture
def way(world: OutputWorld, uploads: Uploads) -> Iterator[ChaosProxy]:
    """Between the attempts and their store."""
    with chaos_proxy(uploads.s3.endpoint.removeprefix("http://")) as proxy:
        world.s3 = replace(uploads.s3, endpoint=f"http://{proxy.address}")
        yield proxy


def an_attempt(world: OutputWorld, *, failed: bool = False) -> OutputAttempt:
    return world.attempt(failed=failed).writes(big=os.urandom(SIZE))


def big(attempt: OutputAttempt) -> bytes:
    return (attempt.folders.work / "out/big").read_bytes()


def sent_since(way: ChaosProxy, before: int) -> int:
    return way.up.passed_bytes - before


@contextmanager
def when_stored(parts: int, action: object) -> Iterator[None]:
    left = parts

    def hook(reached: str) -> None:
        nonlocal left
        left -= reached == STORED
        if reached == STORED and left == 0:
            action()  # type: ignore[operator]  # a plain function

    failpoints.install(hook)
    try:
        yield
    finally:
        failpoints.install(None)


async def test_after_a_cut_connection_only_parts_that_the_store_lacks_are_sent(
    world: OutputWorld, way: ChaosProxy, uploads: Uploads
) -> None:
    attempt = an_attempt(world)
    context = attempt.context()
    with when_stored(3, way.refuse):
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            storing = group.create_task(store_results(context, attempt.spools(), with_directories=True))
            while not context.trouble:
                await asyncio.sleep(0.01)
            stored, before = uploads.stored_bytes(), way.up.passed_bytes
            assert 3 * PART_BYTES <= stored < SIZE
            way.accept()
    assert storing.result() is None
    assert 0 <= sent_since(way, before) - (SIZE - stored) < BESIDE_PARTS
    assert world.published() == {"big": big(attempt)}
    assert uploads.begun() == []


async def test_an_agent_that_is_killed_in_a_large_file_goes_on_in_it(
    world: OutputWorld, way: ChaosProxy, uploads: Uploads
) -> None:
    attempt = an_attempt(world)
    await attempt.is_killed_at(STORED, nth=4)
    stored, before = uploads.stored_bytes(), way.up.passed_bytes
    assert 4 * PART_BYTES <= stored < SIZE
    await attempt.finalizes()
    assert 0 <= sent_since(way, before) - (SIZE - stored) < BESIDE_PARTS
    assert world.published() == {"big": big(attempt)}
    assert uploads.begun() == []


async def test_a_file_that_was_written_since_does_not_get_its_earlier_parts(
    world: OutputWorld, uploads: Uploads
) -> None:
    attempt = an_attempt(world)
    await attempt.is_killed_at(STORED, nth=4)
    with (attempt.folders.work / "out/big").open("r+b") as file:
        file.write(b"other")
    # The embedded server lets no part be replaced, so that the upload has to begin again.
    await attempt.finalizes()
    assert world.published() == {"big": big(attempt)}
    assert uploads.begun() == []


async def test_an_upload_that_the_store_has_forgotten_begins_again(
    world: OutputWorld, uploads: Uploads
) -> None:
    attempt = an_attempt(world)
    await attempt.is_killed_at(STORED, nth=4)
    uploads.forget()
    await attempt.finalizes()
    assert world.published() == {"big": big(attempt)}
    assert uploads.begun() == []


async def test_a_file_that_became_small_leaves_no_parts(world: OutputWorld, uploads: Uploads) -> None:
    attempt = an_attempt(world)
    await attempt.is_killed_at(STORED, nth=4)
    attempt.writes(big="small")
    await attempt.finalizes()
    assert world.published() == {"big": b"small"}
    assert uploads.begun() == []


async def test_who_does_not_try_again_leaves_no_parts(world: OutputWorld, uploads: Uploads) -> None:
    attempt = an_attempt(world, failed=True)

    def break_disk() -> None:
        raise OSError("the disk of the node is broken")

    with when_stored(3, break_disk):
        _, failure = await attempt.tries(failed=True)
    assert "the disk of the node is broken" in failure
    assert world.published() == {}
    assert uploads.begun() == []


async def test_a_stopped_upload_leaves_no_parts(world: OutputWorld, uploads: Uploads) -> None:
    attempt = an_attempt(world)
    context = attempt.context()
    with when_stored(3, context.cancelled.set):
        failure = await store_results(context, attempt.spools(), with_directories=True)
    assert failure is not None
    assert world.published() == {}
    assert uploads.begun() == []


async def test_the_next_attempt_gives_up_what_a_lost_one_had_begun(
    world: OutputWorld, uploads: Uploads
) -> None:
    lost = an_attempt(world)
    await lost.is_killed_at(STORED, nth=2)
    assert len(uploads.begun()) == 1
    world.lose(lost)
    await world.attempt().writes(small="small").finalizes()
    assert world.published() == {"small": b"small"}
    assert uploads.begun() == []
