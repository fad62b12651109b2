"""What holds for inputs whichever way they come to a command: mounted, or copied down."""

import fcntl
from pathlib import Path
from threading import Event

import pytest

from tests.conformance.mounts.conftest import Attempt, a_mounter
from windlass_agent.mounts.base import BadMapping, TransferCancelled
from windlass_proto.model.storage import StorageProfiles

SMALL = {"a.txt": b"alpha", "sub dir/b.txt": b"beta", "sub dir/deep/c.txt": b"gamma"}


def test_directories_of_several_buckets_are_seen_each_on_its_place(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/", "in"), ("s3://other/tools", "deep/er/tools"))
    assert attempt.tree("in") == SMALL
    assert attempt.tree("deep/er/tools") == {"run.sh": b"#!/bin/sh\necho ran\n"}
    assert attempt.mounter.verdict(attempt.root) == ""


def test_one_remote_can_be_seen_at_many_places(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/", "one"), ("oss://data/small/", "two"))
    assert attempt.tree("one") == attempt.tree("two") == SMALL


def test_a_sub_directory_shows_what_is_below_it_only(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/sub dir/", "in"))
    assert attempt.tree("in") == {"b.txt": b"beta", "deep/c.txt": b"gamma"}


def test_a_source_that_is_one_object_is_a_file_of_its_name(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/a.txt", "in"))
    assert attempt.tree("in") == {"a.txt": b"alpha"}


def test_a_directory_without_objects_is_empty_and_takes_new_files(attempt: Attempt) -> None:
    attempt.mount(("oss://data/nothing here/", "in"))
    (attempt.work / "in/new").write_text("mine")
    assert attempt.tree("in") == {"new": b"mine"}


def test_what_a_command_makes_beside_its_inputs_never_reaches_the_store(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/", "in"))
    (attempt.work / "in/new").write_text("mine")
    (attempt.work / "in/sub dir/new").mkdir()
    (attempt.work / "in/a.txt").unlink()
    (attempt.work / "in/sub dir/b.txt").write_text("changed by root")
    assert attempt.s3.objects("data/small") == SMALL
    attempt.mounter.release(attempt.root)
    assert attempt.s3.objects("data/small") == SMALL


def test_names_are_had_in_another_character_set_and_contents_as_they_are(attempt: Attempt) -> None:
    attempt.mount(("oss://data/names/", "in"), codec="gbk")
    names = {"文件.txt".encode("gbk"), "目录/数据.txt".encode("gbk")}
    found = attempt.tree("in")
    assert {name.encode(errors="surrogateescape") for name in found} == names
    assert sorted(found.values()) == [b"chinese", b"deeper"]


def test_a_name_that_the_character_set_lacks_is_refused_with_the_name(attempt: Attempt) -> None:
    with pytest.raises(BadMapping, match="cannot be had in latin-1"):
        attempt.mount(("oss://data/names/", "in"), codec="latin-1")


def test_file_locks_keep_a_second_opener_out(attempt: Attempt) -> None:
    attempt.mount(("oss://data/small/", "in"))
    with (attempt.work / "in/a.txt").open() as first, (attempt.work / "in/a.txt").open() as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_wrong_credentials_are_the_users_mistake_and_are_not_shown(attempt: Attempt) -> None:
    wrong = attempt.s3.profile(secret_key="not-the-secret")
    with pytest.raises(BadMapping) as caught:
        attempt.mount(("oss://data/small/", "in"), profiles=StorageProfiles(by_scheme={"oss": wrong}))
    assert "oss://data/small/" in str(caught.value)
    assert "not-the-secret" not in str(caught.value)
    assert attempt.mounts() == []


def test_a_bucket_that_is_not_there_is_the_users_mistake(attempt: Attempt) -> None:
    with pytest.raises(BadMapping, match="no-such-bucket"):
        attempt.mount(("oss://no-such-bucket/x/", "in"))


@pytest.mark.parametrize("planted", ["in", "in/deeper"])
def test_a_link_in_the_way_is_refused_and_nothing_behind_it_is_touched(
    attempt: Attempt, tmp_path: Path, planted: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (attempt.work / planted).parent.mkdir(exist_ok=True)
    (attempt.work / planted).symlink_to(outside)
    with pytest.raises(BadMapping, match="the package put there"):
        attempt.mount(("oss://data/small/", planted))
    assert list(outside.iterdir()) == []
    assert attempt.mounts() == []


def test_an_attempt_that_was_stopped_gets_nothing(attempt: Attempt) -> None:
    cancelled = Event()
    cancelled.set()
    with pytest.raises(TransferCancelled):
        attempt.mount(("oss://data/small/", "in"), cancelled=cancelled)
    assert attempt.mounts() == []


def test_releasing_twice_or_what_was_never_mounted_is_fine(attempt: Attempt) -> None:
    attempt.mounter.release(attempt.root)
    attempt.mount(("oss://data/small/", "in"))
    attempt.mounter.release(attempt.root)
    attempt.mounter.release(attempt.root)
    assert attempt.mounter.verdict(attempt.root) == ""


def test_a_directory_of_the_node_is_seen_where_that_is_allowed(attempt: Attempt, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "f").write_text("local")
    with pytest.raises(BadMapping, match=r"local\.directories"):
        attempt.mount((f"file://{here}", "in"))
    attempt.mounter = a_mounter(attempt.way, local=(here,))
    attempt.mount((f"file://{here}", "in"))
    assert (attempt.work / "in/f").read_text() == "local"
    attempt.mounter.release(attempt.root)
    assert (here / "f").read_text() == "local"
