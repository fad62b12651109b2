"""What every log store promises (logstore/base.py)."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.logstore.base import (
    MAX_READ_BYTES,
    AppendOutcome,
    AppendVerdict,
    Gap,
    LogSlice,
    LogStore,
    LogWriter,
    StreamKey,
)
from windlass_coordinator.logstore.files import FileLogStore
from windlass_proto.model.ids import JobId, TaskKey
from windlass_proto.model.states import LogStream

Opener = Callable[[], LogStore]

IMPLEMENTATIONS: dict[str, Callable[[Path], LogStore]] = {
    "files": open_log_store,
    "files, two open at a time": lambda directory: FileLogStore(directory, max_open_streams=2),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store again, as after a kill: nothing of the one before is closed or synced."""
    opened: list[LogStore] = []

    def open_again() -> LogStore:
        opened.append(IMPLEMENTATIONS[request.param](tmp_path / "logs"))
        return opened[-1]

    yield open_again
    for one in opened:
        one.close()


@pytest.fixture
def store(reopen: Opener) -> LogStore:
    return reopen()


def a_key(
    *,
    job: str = "job-1",
    task: int = 1,
    index: int = 0,
    attempt: int = 1,
    stream: LogStream = LogStream.STDOUT,
) -> StreamKey:
    return StreamKey(job_id=JobId(job), task_key=TaskKey(task), index=index, attempt=attempt, stream=stream)


def append(writer: LogWriter, key: StreamKey, *, offset: int, data: bytes) -> AppendOutcome:
    return writer.append(key, offset=offset, data=data, crc32=zlib.crc32(data))


def stored(store: LogStore, key: StreamKey, data: bytes) -> LogWriter:
    writer = store.open_writer()
    append(writer, key, offset=0, data=data)
    writer.sync()
    return writer


def everything(store: LogStore, key: StreamKey) -> bytes:
    """All bytes; a lost one is shown as `?`."""
    content = b""
    while found := store.read(key, offset=len(content), limit=1 << 20):
        if isinstance(found, LogSlice) and not found.data:
            break
        content += found.data if isinstance(found, LogSlice) else b"?" * found.length
    return content


def test_an_unknown_stream_is_empty(store: LogStore) -> None:
    assert store.durable_end(a_key()) == 0
    assert store.read(a_key(), offset=0, limit=10) == LogSlice(offset=0, data=b"")
    assert store.gaps(a_key()) == ()


def test_appended_bytes_are_durable_and_readable_after_a_sync(store: LogStore) -> None:
    writer = store.open_writer()

    outcome = append(writer, a_key(), offset=0, data=b"hello")
    assert store.durable_end(a_key()) == 0
    assert store.read(a_key(), offset=0, limit=10) == LogSlice(offset=0, data=b"")
    writer.sync()

    assert outcome == AppendOutcome(verdict=AppendVerdict.STORED, end=5)
    assert store.durable_end(a_key()) == 5
    assert store.read(a_key(), offset=0, limit=10) == LogSlice(offset=0, data=b"hello")


def test_a_read_gives_what_was_asked_for(store: LogStore) -> None:
    stored(store, a_key(), b"0123456789")

    assert store.read(a_key(), offset=3, limit=4) == LogSlice(offset=3, data=b"3456")
    assert store.read(a_key(), offset=8, limit=4) == LogSlice(offset=8, data=b"89")
    assert store.read(a_key(), offset=10, limit=4) == LogSlice(offset=10, data=b"")
    assert store.read(a_key(), offset=99, limit=4) == LogSlice(offset=99, data=b"")


def test_one_read_is_bounded(store: LogStore) -> None:
    stored(store, a_key(), bytes(MAX_READ_BYTES + 1))

    found = store.read(a_key(), offset=0, limit=1 << 40)

    assert found == LogSlice(offset=0, data=bytes(MAX_READ_BYTES))


def test_the_same_append_twice_changes_nothing(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")

    assert append(writer, a_key(), offset=0, data=b"hello") == AppendOutcome(
        verdict=AppendVerdict.DUPLICATE, end=5
    )
    assert append(writer, a_key(), offset=2, data=b"ll") == AppendOutcome(
        verdict=AppendVerdict.DUPLICATE, end=5
    )
    writer.sync()
    assert everything(store, a_key()) == b"hello"


def test_an_overlapping_append_adds_only_its_new_tail(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")

    outcome = append(writer, a_key(), offset=3, data=b"lo, world")
    writer.sync()

    assert outcome == AppendOutcome(verdict=AppendVerdict.STORED, end=12)
    assert everything(store, a_key()) == b"hello, world"


def test_an_append_beyond_the_end_is_answered_with_the_end(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")

    assert append(writer, a_key(), offset=6, data=b"x") == AppendOutcome(verdict=AppendVerdict.AHEAD, end=5)
    assert writer.append_gap(a_key(), offset=6, length=1, reason="quota") == AppendOutcome(
        verdict=AppendVerdict.AHEAD, end=5
    )
    writer.sync()
    assert everything(store, a_key()) == b"hello"


def test_bytes_that_differ_from_the_stored_ones_are_told_and_the_stored_ones_kept(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")

    outcome = append(writer, a_key(), offset=0, data=b"jello, world")
    writer.sync()

    assert outcome == AppendOutcome(verdict=AppendVerdict.MISMATCH, end=12)
    assert everything(store, a_key()) == b"hello, world"


def test_bytes_with_a_wrong_checksum_are_not_stored(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")

    outcome = writer.append(a_key(), offset=5, data=b"x", crc32=zlib.crc32(b"y"))
    writer.sync()

    assert outcome == AppendOutcome(verdict=AppendVerdict.CORRUPT, end=5)
    assert everything(store, a_key()) == b"hello"


def test_a_gap_counts_as_covered_and_is_read_as_a_gap(store: LogStore) -> None:
    writer = stored(store, a_key(), b"abc")

    outcome = writer.append_gap(a_key(), offset=3, length=10, reason="quota")
    append(writer, a_key(), offset=13, data=b"xyz")
    writer.sync()

    assert outcome == AppendOutcome(verdict=AppendVerdict.STORED, end=13)
    assert store.durable_end(a_key()) == 16
    assert store.gaps(a_key()) == (Gap(offset=3, length=10, reason="quota"),)
    assert store.read(a_key(), offset=0, limit=99) == LogSlice(offset=0, data=b"abc")
    assert store.read(a_key(), offset=3, limit=99) == Gap(offset=3, length=10, reason="quota")
    assert store.read(a_key(), offset=9, limit=99) == Gap(offset=9, length=4, reason="quota")
    assert store.read(a_key(), offset=14, limit=99) == LogSlice(offset=14, data=b"yz")


def test_a_repeated_or_overlapping_gap_adds_only_what_is_new(store: LogStore) -> None:
    writer = stored(store, a_key(), b"abc")
    writer.append_gap(a_key(), offset=3, length=10, reason="quota")

    again = writer.append_gap(a_key(), offset=3, length=10, reason="quota")
    longer = writer.append_gap(a_key(), offset=1, length=14, reason="disk")
    writer.sync()

    assert again == AppendOutcome(verdict=AppendVerdict.DUPLICATE, end=13)
    assert longer == AppendOutcome(verdict=AppendVerdict.STORED, end=15)
    assert store.gaps(a_key()) == (
        Gap(offset=3, length=10, reason="quota"),
        Gap(offset=13, length=2, reason="disk"),
    )


def test_bytes_sent_again_across_a_gap_are_compared_where_they_are_stored(store: LogStore) -> None:
    writer = stored(store, a_key(), b"abc")
    writer.append_gap(a_key(), offset=3, length=2, reason="quota")
    append(writer, a_key(), offset=5, data=b"xyz")

    assert append(writer, a_key(), offset=0, data=b"abcdexyz!").verdict is AppendVerdict.STORED
    assert append(writer, a_key(), offset=0, data=b"abcdexyZ!").verdict is AppendVerdict.MISMATCH
    writer.sync()
    assert everything(store, a_key()) == b"abc??xyz!"


def test_streams_do_not_mix(store: LogStore) -> None:
    keys = [
        a_key(),
        a_key(stream=LogStream.STDERR),
        a_key(attempt=2),
        a_key(index=1),
        a_key(index=1000),
        a_key(task=2),
        a_key(job="job-2"),
    ]
    writer = store.open_writer()
    for turn in range(3):
        for number, key in enumerate(keys):
            append(writer, key, offset=2 * turn, data=b"%d%d" % (number, turn))
    writer.sync()

    assert [everything(store, key) for key in keys] == [b"%d0%d1%d2" % (n, n, n) for n in range(len(keys))]
    assert [store.durable_end(key) for key in keys] == [6] * len(keys)


def test_what_was_written_is_found_again_after_a_kill(reopen: Opener) -> None:
    writer = stored(reopen(), a_key(), b"abc")
    writer.append_gap(a_key(), offset=3, length=2, reason="quota")
    append(writer, a_key(), offset=5, data=b"unsynced")

    after = reopen()

    assert after.durable_end(a_key()) == 13
    assert everything(after, a_key()) == b"abc??unsynced"
    assert append(after.open_writer(), a_key(), offset=13, data=b"!").end == 14


def test_two_writers_of_one_stream_agree(store: LogStore) -> None:
    old, new = store.open_writer(), store.open_writer()
    append(old, a_key(), offset=0, data=b"hello")

    assert append(new, a_key(), offset=0, data=b"hello").verdict is AppendVerdict.DUPLICATE
    new.sync()
    assert store.durable_end(a_key()) == 5
    assert append(old, a_key(), offset=5, data=b"!").end == 6
    old.sync()
    assert everything(store, a_key()) == b"hello!"


def test_two_coordinators_whose_agent_goes_from_one_to_the_other_agree(reopen: Opener) -> None:
    key, here, there = a_key(), reopen(), reopen()
    content = b""
    for number, store in enumerate([here, there, here, there, there, here]):
        piece = f"piece {number}\n".encode()
        # The other one's last piece comes again: its acknowledgement was lost.
        repeated = content[-8:] + piece
        offset = len(content) - len(content[-8:])
        with closing(store.open_writer()) as writer:
            outcome = writer.append(key, offset=offset, data=repeated, crc32=zlib.crc32(repeated))
            writer.sync()
        content += piece
        assert outcome == AppendOutcome(verdict=AppendVerdict.STORED, end=len(content))
        for reader in (here, there):
            assert reader.durable_end(key) == len(content)
            assert reader.read(key, offset=0, limit=1000) == LogSlice(offset=0, data=content)
    with closing(there.open_writer()) as writer:
        writer.append_gap(key, offset=len(content), length=100, reason="lost")
        writer.sync()
    assert [one.durable_end(key) for one in (here, there)] == [len(content) + 100] * 2
    with closing(here.open_writer()) as writer:
        last = writer.append(key, offset=len(content) + 100, data=b"end", crc32=zlib.crc32(b"end"))
        writer.sync()
    assert last.end == len(content) + 103
    assert there.gaps(key) == (Gap(offset=len(content), length=100, reason="lost"),)
    behind = len(content) + 100
    assert there.read(key, offset=behind, limit=9) == LogSlice(offset=behind, data=b"end")


def test_a_deleted_job_is_forgotten_and_takes_nothing_more(store: LogStore) -> None:
    writer = stored(store, a_key(), b"hello")
    stored(store, a_key(job="job-2"), b"other")
    append(writer, a_key(), offset=5, data=b", world")

    store.delete_job(JobId("job-1"))
    store.delete_job(JobId("job-1"))
    writer.sync()

    assert store.durable_end(a_key()) == 0
    assert everything(store, a_key()) == b""
    assert append(writer, a_key(), offset=0, data=b"x") == AppendOutcome(verdict=AppendVerdict.GONE, end=0)
    assert everything(store, a_key(job="job-2")) == b"other"


def test_a_job_that_is_deleted_before_its_output_is_synced_hinders_no_other(store: LogStore) -> None:
    writer = store.open_writer()
    append(writer, a_key(), offset=0, data=b"hello")
    append(writer, a_key(job="job-2"), offset=0, data=b"other")

    store.delete_job(JobId("job-1"))
    writer.sync()

    assert everything(store, a_key(job="job-2")) == b"other"


def test_names_that_the_coordinator_did_not_make_are_refused(store: LogStore) -> None:
    for job in ("../x", "", ".", "A", "job/1"):
        with pytest.raises(ValueError, match="is not a job id"):
            store.durable_end(a_key(job=job))
