"""When a node may delete an attempt whose output it says that it has sent."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.logstore.base import Gap, LogStore
from windlass_coordinator.rpc.log_archive import LogArchive, stream_key
from windlass_proto.model.ids import JobId, TaskKey
from windlass_proto.model.states import LogStream

FACTS = LogFacts(
    job_id=JobId("job-1"),
    task_key=TaskKey(1),
    index=0,
    attempt=1,
    ended=True,
    stdout_end=10,
    stderr_end=0,
)
PATIENCE = timedelta(seconds=60)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = open_log_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def archive(store: LogStore, clock: Clock) -> LogArchive:
    return LogArchive(store, patience=PATIENCE, clock=clock)


def stored(store: LogStore, data: bytes) -> None:
    writer = store.open_writer()
    writer.append(stream_key(FACTS, LogStream.STDOUT), offset=0, data=data, crc32=zlib.crc32(data))
    writer.sync()
    writer.close()


def test_an_attempt_is_settled_when_all_its_output_is_stored(archive: LogArchive, store: LogStore) -> None:
    stored(store, b"0123456789")
    assert archive.which_are_settled([FACTS]) == [True]


def test_an_attempt_that_has_not_ended_and_one_whose_output_is_on_its_way_are_kept(
    archive: LogArchive, store: LogStore
) -> None:
    stored(store, b"0123")
    assert archive.which_are_settled([replace(FACTS, ended=False), FACTS]) == [False, False]


def test_what_nobody_has_counted_and_what_was_deleted_is_settled(archive: LogArchive) -> None:
    assert archive.which_are_settled([replace(FACTS, stdout_end=None, stderr_end=None), None]) == [True, True]


def test_what_a_node_says_for_long_that_it_has_not_is_a_gap(
    archive: LogArchive, store: LogStore, clock: Clock
) -> None:
    stored(store, b"0123")
    assert archive.which_are_settled([FACTS]) == [False]
    clock.now_s += PATIENCE.total_seconds() - 1
    assert archive.which_are_settled([FACTS]) == [False]
    clock.now_s += 1
    assert archive.which_are_settled([FACTS]) == [True]
    reason = "the node that ran it has it no more"
    assert store.gaps(stream_key(FACTS, LogStream.STDOUT)) == (Gap(offset=4, length=6, reason=reason),)
    assert archive.is_stored(FACTS)


def test_output_that_comes_late_begins_the_patience_anew(
    archive: LogArchive, store: LogStore, clock: Clock
) -> None:
    assert archive.which_are_settled([FACTS]) == [False]
    stored(store, b"0123456789")
    assert archive.which_are_settled([FACTS]) == [True]
    clock.now_s += 2 * PATIENCE.total_seconds()
    assert archive.which_are_settled([replace(FACTS, stdout_end=12)]) == [False]
