"""Files of the spool: what was written is read, what is torn is passed over, what is released goes."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from windlass_agent.spool.attempt_dir import OutputGap, OutputSpool, attempt_path, remove_attempt
from windlass_agent.spool.durable import JsonLog, read_json_lines, write_whole
from windlass_agent.spool.intents import IntentJournal
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.states import LogStream


def refs(*indexes: int, task: int = 1) -> list[AttemptRef]:
    return [
        AttemptRef(task_key=TaskKey(task), index=index, attempt=1, fence=Fence(100 + index))
        for index in indexes
    ]


def a_spool(directory: Path, **segments: str) -> OutputSpool:
    directory.mkdir(exist_ok=True)
    for name, content in segments.items():
        (directory / name.replace("_", ".")).write_text(content)
    return OutputSpool(directory, LogStream.STDOUT, segment_bytes=10)


def test_output_is_read_by_offset_up_to_a_segments_end(tmp_path: Path) -> None:
    spool = a_spool(tmp_path, stdout_000000="0123456789", stdout_000001="abc", stderr_000000="no")
    assert spool.produced_end() == 13
    assert spool.read(0, 4) == b"0123"
    assert spool.read(8, 100) == b"89"
    assert spool.read(10, 100) == b"abc"
    assert spool.read(13, 100) == b""


def test_a_silent_command_has_no_output(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path / "missing", LogStream.STDERR)
    assert (spool.produced_end(), spool.read(0, 10), spool.gaps()) == (0, b"", ())
    spool.release(10)


def test_released_segments_go_but_the_newest_stays(tmp_path: Path) -> None:
    spool = a_spool(
        tmp_path, stdout_000000="0123456789", stdout_000001="0123456789", stdout_000002="0123456789"
    )
    spool.release(19)
    assert spool.read(0, 1) == b""
    assert spool.read(10, 1) == b"0"
    spool.release(30)
    assert spool.produced_end() == 30
    assert sorted(os.listdir(tmp_path)) == ["stdout.000002"]


def test_reading_ends_at_a_gap_and_goes_on_behind_it(tmp_path: Path) -> None:
    gap = '{"offset":4,"length":11,"reason":"full"}\n{"offset":15,"length":2,"reason":"full"}\n'
    spool = a_spool(tmp_path, stdout_000000="0123", stdout_000001="\0\0\0\0\0\0\0end", stdout_gaps=gap)
    assert spool.gaps() == (OutputGap(offset=4, length=13, reason="full"),)
    assert spool.read(0, 100) == b"0123"
    assert spool.read(4, 100) == b""
    assert spool.read(17, 100) == b"end"
    assert spool.produced_end() == 20


def test_a_gap_at_the_end_counts_as_produced(tmp_path: Path) -> None:
    spool = a_spool(tmp_path, stdout_000000="01", stdout_gaps='{"offset":2,"length":90,"reason":"full"}\n')
    assert spool.produced_end() == 92


def test_an_attempts_directory_is_named_by_it_and_removed_whole(tmp_path: Path) -> None:
    path = attempt_path(tmp_path, refs(4)[0])
    assert path == tmp_path / "1.4.1"
    (path / "deep").mkdir(parents=True)
    remove_attempt(path)
    remove_attempt(path)
    assert not path.exists()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_log_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n{"a":')
    log = JsonLog(path)
    log.append([{"a": 2}, {"a": 3}])
    log.close()
    lines = read_json_lines(path)
    assert (lines.records, lines.damaged) == (({"a": 1}, {"a": 2}, {"a": 3}), 1)


@contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """As on a full disk: no file of this process grows beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_record_that_does_not_fit_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(path, reserve_bytes=100)
    log.append([{"a": 1}])
    with files_end_at(50), pytest.raises(OSError, match=r"No space left|too large"):
        log.append([{"a": "x" * 100}])
    log.append([{"a": 2}])
    lines = read_json_lines(path)
    assert (lines.records, lines.damaged) == (({"a": 1}, {"a": 2}), 0)
    log.close()


def test_a_log_that_was_not_closed_goes_on_behind_its_last_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(path)
    log.append([{"a": 1}])
    again = JsonLog(path)  # as after a kill -9: the room taken in advance is still there
    again.append([{"a": 2}])
    assert read_json_lines(path).records == ({"a": 1}, {"a": 2})
    log.close()
    again.close()


def test_what_is_forgotten_on_a_full_disk_is_written_down_later(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    journal.assign({}, refs(*range(3000)))
    full = len((tmp_path / "intents").read_bytes().rstrip(b"\0"))
    with files_end_at(full):
        journal.forget(refs(*range(2999)))
        assert set(journal.live) == set(refs(2999))
    journal.assign({}, refs(5000))
    journal.forget(refs(5000))
    journal.close()
    again = IntentJournal(tmp_path / "intents")
    assert set(again.live) == set(refs(2999))
    again.close()


def test_a_full_disk_leaves_room_to_forget_what_is_there(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    journal.assign({}, refs(*range(1000)))
    with files_end_at((tmp_path / "intents").stat().st_size):
        journal.forget(refs(*range(999)))
    again = IntentJournal(tmp_path / "intents")
    assert set(again.live) == set(refs(999))
    again.close()
    journal.close()


def test_assignments_are_live_until_they_are_forgotten(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    journal.assign({"task": "count"}, refs(0, 1, 2))
    journal.assign({"task": "merge"}, refs(0, task=2))
    journal.forget([*refs(1), *refs(0, task=2), *refs(9)])
    expected = {refs(0)[0]: {"task": "count"}, refs(2)[0]: {"task": "count"}}
    assert journal.live == expected
    journal.close()
    again = IntentJournal(tmp_path / "intents")
    assert (again.live, again.damaged) == (expected, 0)
    again.close()


def test_a_batch_is_one_line_whatever_its_size(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    journal.assign({"spec": "x" * 1000}, refs(*range(100)))
    journal.close()
    content = (tmp_path / "intents").read_text()
    assert content.count("\n") == 1
    assert content.count("x" * 1000) == 1


def test_a_torn_batch_is_counted_and_the_rest_is_live(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    journal.assign({}, refs(0))
    journal.assign({}, refs(1))
    journal.close()
    whole = (tmp_path / "intents").read_bytes()
    (tmp_path / "intents").write_bytes(whole[:-3])
    again = IntentJournal(tmp_path / "intents")
    assert (set(again.live), again.damaged) == (set(refs(0)), 1)
    again.assign({}, refs(2))
    again.close()
    third = IntentJournal(tmp_path / "intents")
    assert set(third.live) == set(refs(0, 2))
    third.close()


def test_history_is_dropped_when_the_file_has_grown(tmp_path: Path) -> None:
    path = tmp_path / "intents"
    journal = IntentJournal(path, compact_bytes=20_000)
    journal.assign({"task": "stays"}, refs(0, 1))
    for _ in range(200):
        journal.assign({"task": "goes", "spec": "x" * 200}, refs(*range(10, 30)))
        journal.forget(refs(*range(10, 30)))
    assert len(path.read_bytes().rstrip(b"\0")) < 25_000
    journal.close()
    again = IntentJournal(path)
    assert dict(again.live) == {ref: {"task": "stays"} for ref in refs(0, 1)}
    again.close()


def test_the_gpus_of_an_attempt_are_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "intents"
    journal = IntentJournal(path)
    journal.assign({}, refs(0, 1, 2))
    journal.give_gpus(refs(0)[0], ("0", "1"))
    journal.give_gpus(refs(1)[0], ("GPU-ab",))
    journal.give_gpus(refs(1)[0], ("2",))
    journal.forget(refs(0))
    journal.close()
    for compact_bytes in (1 << 20, 1, 1 << 20):  # the second writes the file anew
        again = IntentJournal(path, compact_bytes=compact_bytes)
        assert (dict(again.gpus), again.damaged) == ({refs(1)[0]: ("2",)}, 0)
        again.close()
