"""Packages that a node keeps, against a real object store."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from tests.support.s3_server import S3Server
from windlass_agent.mounts.base import BadMapping, ObjectIdentity, Storage, TransferCancelled
from windlass_agent.mounts.object_store import ObjectStore
from windlass_agent.runner.package_cache import PackageCache
from windlass_proto.model.storage import ObjectLocation, parse_object_url

SIZE = 100_000
ROOM_FOR_TWO = 2 * SIZE + 100


@dataclass
class Counted:
    """The store, and how often it was asked for bytes."""

    store: ObjectStore
    fetched: int = 0
    held: Event | None = None
    began: Event | None = None

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        self.fetched += 1
        if self.held is not None and self.began is not None:
            self.began.set()
            assert self.held.wait(60)
        self.store.fetch_file(source, path, cancelled=cancelled)

    def identity_of(self, source: ObjectLocation) -> ObjectIdentity:
        return self.store.identity_of(source)


@dataclass
class Node:
    """What an agent has of packages."""

    root: Path
    store: Counted
    limit_bytes: int = ROOM_FOR_TWO

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.cache = PackageCache(self.root / "packages", limit_bytes=self.limit_bytes)

    def read(self, name: str, cancelled: Event | None = None) -> bytes:
        storage: Storage = self.store  # type: ignore[assignment]  # all of it that a package needs
        source = parse_object_url(f"oss://bucket/{name}")
        private = self.root / f"private-{os.urandom(4).hex()}"
        with self.cache.archive(storage, source, private=private, cancelled=cancelled or Event()) as archive:
            return archive.read()

    @property
    def kept_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.root / "packages" / "objects").iterdir())

    @property
    def left(self) -> list[Path]:
        return [*self.root.glob("private-*"), *(self.root / "packages" / "incoming").iterdir()]


def content(mark: str) -> bytes:
    return mark.encode() * SIZE


@pytest.fixture
def node(s3: S3Server, tmp_path: Path) -> Node:
    return Node(tmp_path, Counted(ObjectStore(s3.profile(), threads=2)))


def test_what_was_fetched_once_is_not_fetched_again_also_by_the_next_agent(node: Node, s3: S3Server) -> None:
    s3.put("bucket/kept/a", content("a"))
    assert [node.read("kept/a"), node.read("kept/a")] == [content("a")] * 2
    node.restart()
    assert node.read("kept/a") == content("a")
    assert (node.store.fetched, node.left) == (1, [])


def test_an_object_that_was_replaced_is_fetched_anew_and_one_that_is_gone_is_refused(
    node: Node, s3: S3Server
) -> None:
    s3.put("bucket/new/a", content("a"))
    node.read("new/a")
    s3.put("bucket/new/a", content("b") + b"more")
    assert node.read("new/a") == content("b") + b"more"
    (s3.root / "bucket/new/a").unlink()
    with pytest.raises(BadMapping):
        node.read("new/a")


def test_one_content_under_two_names_is_kept_once(node: Node, s3: S3Server) -> None:
    for name in ("x", "y"):
        s3.put(f"bucket/twice/{name}", content("a"))
        node.read(f"twice/{name}")
    assert node.kept_bytes == SIZE


def test_what_was_used_longest_ago_goes_first(node: Node, s3: S3Server) -> None:
    for name in "abc":
        s3.put(f"bucket/room/{name}", content(name))
    node.read("room/a")
    node.read("room/b")
    node.read("room/a")
    node.read("room/c")
    assert node.kept_bytes == 2 * SIZE
    assert node.store.fetched == 3
    node.read("room/a")
    assert node.store.fetched == 3
    node.read("room/b")
    assert node.store.fetched == 4


def test_what_is_larger_than_the_cache_is_used_and_not_kept(s3: S3Server, tmp_path: Path) -> None:
    node = Node(tmp_path, Counted(ObjectStore(s3.profile(), threads=2)), limit_bytes=0)
    s3.put("bucket/large/a", content("a"))
    assert [node.read("large/a"), node.read("large/a")] == [content("a")] * 2
    assert (node.store.fetched, node.kept_bytes, node.left) == (2, 0, [])


def test_a_kept_package_whose_bytes_have_changed_is_fetched_anew(node: Node, s3: S3Server) -> None:
    s3.put("bucket/rotten/a", content("a"))
    node.read("rotten/a")
    (kept,) = (node.root / "packages" / "objects").iterdir()
    kept.chmod(0o600)
    kept.write_bytes(content("x"))
    assert node.read("rotten/a") == content("a")
    assert node.read("rotten/a") == content("a")
    assert node.store.fetched == 2


def test_many_attempts_at_once_fetch_a_package_once(node: Node, s3: S3Server) -> None:
    s3.put("bucket/many/a", content("a"))
    node.store.held, node.store.began = Event(), Event()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(node.read, "many/a") for _ in range(8)]
        assert node.store.began.wait(60)
        node.store.held.set()
        assert {read.result(60) for read in reads} == {content("a")}
    assert node.store.fetched == 1


def test_an_attempt_that_is_stopped_does_not_wait_for_the_one_that_fetches(node: Node, s3: S3Server) -> None:
    s3.put("bucket/stopped/a", content("a"))
    node.store.held, node.store.began = Event(), Event()
    stopped = Event()
    stopped.set()
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(node.read, "stopped/a")
        assert node.store.began.wait(60)
        with pytest.raises(TransferCancelled):
            node.read("stopped/a", stopped)
        node.store.held.set()
        assert read.result(60) == content("a")


def test_what_a_killed_agent_left_half_fetched_is_removed(node: Node, s3: S3Server) -> None:
    s3.put("bucket/killed/a", content("a"))
    node.read("killed/a")
    half = node.root / "packages" / "incoming" / "half"
    half.write_bytes(b"half")
    node.restart()
    assert node.read("killed/a") == content("a")
    assert (node.left, node.store.fetched) == ([], 1)


def test_what_is_kept_can_only_be_read(node: Node, s3: S3Server) -> None:
    s3.put("bucket/read/a", content("a"))
    node.read("read/a")
    (kept,) = (node.root / "packages" / "objects").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o400
    assert (node.root / "packages" / "objects").stat().st_mode & 0o777 == 0o700
