"""Copying directories and files between a node and a real S3 server."""

from pathlib import Path
from threading import Event

import pytest

from tests.support.s3_server import S3Server, free_port
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import BadMapping, Storage, StorageUnavailable, TransferCancelled
from windlass_proto.model.storage import StorageProfile, StorageProfiles, parse_object_url

NOT_CANCELLED = Event()


@pytest.fixture
def store(s3: S3Server) -> Storage:
    return Storages(s3.profiles(), threads=4).for_scheme("oss")


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_directory_comes_down_as_it_is(s3: S3Server, store: Storage, tmp_path: Path) -> None:
    for name in ("down/a.txt", "down/deep/er/b.txt", "down-not/c.txt"):
        s3.put(f"bucket/{name}", name)
    store.fetch_directory(parse_object_url("oss://bucket/down/"), tmp_path, cancelled=NOT_CANCELLED)
    assert files_below(tmp_path) == {"a.txt": b"down/a.txt", "deep/er/b.txt": b"down/deep/er/b.txt"}


def test_the_slash_at_the_end_of_a_directory_may_be_left_out(
    s3: S3Server, store: Storage, tmp_path: Path
) -> None:
    s3.put("bucket/slashless/a.txt", "a")
    store.fetch_directory(parse_object_url("oss://bucket/slashless"), tmp_path, cancelled=NOT_CANCELLED)
    assert files_below(tmp_path) == {"a.txt": b"a"}


def test_a_source_that_is_one_object_becomes_a_file(s3: S3Server, store: Storage, tmp_path: Path) -> None:
    s3.put("bucket/single/log.txt", "lines")
    store.fetch_directory(parse_object_url("oss://bucket/single/log.txt"), tmp_path, cancelled=NOT_CANCELLED)
    assert files_below(tmp_path) == {"log.txt": b"lines"}


def test_a_directory_with_nothing_in_it_stays_empty(store: Storage, tmp_path: Path) -> None:
    store.fetch_directory(parse_object_url("oss://bucket/nothing/"), tmp_path, cancelled=NOT_CANCELLED)
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("url", ["oss://no-such-bucket/a/", "oss://Not_A_Bucket/a/"])
def test_a_missing_bucket_is_the_users_mistake(url: str, store: Storage, tmp_path: Path) -> None:
    with pytest.raises(BadMapping, match=r"bucket|Bucket"):
        store.fetch_directory(parse_object_url(url), tmp_path, cancelled=NOT_CANCELLED)


def test_a_missing_file_is_the_users_mistake(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(BadMapping, match=r"oss://bucket/none\.tar\.gz"):
        store.fetch_file(
            parse_object_url("oss://bucket/none.tar.gz"), tmp_path / "x", cancelled=NOT_CANCELLED
        )


def test_a_wrong_secret_is_the_users_mistake(s3: S3Server, tmp_path: Path) -> None:
    profiles = StorageProfiles(by_scheme={"oss": s3.profile(secret_key="wrong")})
    store = Storages(profiles, threads=1).for_scheme("oss")
    with pytest.raises(BadMapping, match=r"SignatureDoesNotMatch|AccessDenied"):
        store.fetch_directory(parse_object_url("oss://bucket/down/"), tmp_path, cancelled=NOT_CANCELLED)


def test_a_scheme_without_a_profile_says_what_is_configured(s3: S3Server) -> None:
    storages = Storages(StorageProfiles(by_scheme={"s3": s3.profile()}), threads=1)
    with pytest.raises(BadMapping, match=r"no storage profile for cos:// here \(configured: s3\)"):
        storages.for_scheme("cos")


def test_a_server_that_does_not_answer_is_not_the_users_mistake(tmp_path: Path) -> None:
    profile = StorageProfile(endpoint=f"http://127.0.0.1:{free_port()}", access_key="a", secret_key="b")
    store = Storages(StorageProfiles(by_scheme={"oss": profile}), threads=1).for_scheme("oss")
    with pytest.raises(StorageUnavailable, match="oss://bucket/down/"):
        store.fetch_directory(parse_object_url("oss://bucket/down/"), tmp_path, cancelled=NOT_CANCELLED)


def test_a_transfer_stops_when_it_is_told_to(s3: S3Server, store: Storage, tmp_path: Path) -> None:
    s3.put("bucket/stopped/a.txt", "a")
    cancelled = Event()
    cancelled.set()
    with pytest.raises(TransferCancelled):
        store.fetch_directory(parse_object_url("oss://bucket/stopped/"), tmp_path, cancelled=cancelled)
    assert files_below(tmp_path) == {}
