"""What a journal tells, and when its segments may go."""

from windlass_agent.spool.durable import parse_json_lines
from windlass_agent.spool.keeper_journal import JournalPins, read_content
from windlass_agent.spool.slot_dir import JournalSegment
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


def a_ref(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(1), index=index, attempt=1, fence=Fence(1))


def a_segment(number: int, *records: dict[str, object]) -> JournalSegment:
    return JournalSegment(number=number, boot_id="boot", records=records, damaged=0)


def test_begun_started_and_ended_attempts_are_told_apart() -> None:
    content = read_content(
        [
            a_segment(
                1,
                {"is": "intent", "ref": [1, 0, 1, 1]},
                {"is": "start", "ref": [1, 0, 1, 1], "pid": 5, "ticks": 6},
                {"is": "exit", "ref": [1, 0, 1, 1], "status": 0},
                {"is": "intent", "ref": [1, 1, 1, 1]},
                {"is": "start", "ref": [1, 1, 1, 1], "pid": 7, "ticks": 8},
            ),
            a_segment(2, {"is": "intent", "ref": [1, 2, 1, 1]}),
        ]
    )
    assert list(content.segment_of) == [a_ref(0), a_ref(1), a_ref(2)]
    assert list(content.starts) == [a_ref(0), a_ref(1)]
    assert list(content.ends) == [a_ref(0)]
    assert content.segment_of[a_ref(2)].number == 2


def test_reading_ends_at_the_first_nul_and_passes_over_what_is_torn() -> None:
    lines = parse_json_lines(b'{"is":"intent"}\n\xff\xfe\n"text"\n{"is":"exit"}\n{"is":"ex' + b"\0\0\0{}\n")
    assert lines.records == ({"is": "intent"}, {"is": "exit"})
    assert lines.damaged == 3


def test_a_line_without_its_end_is_torn_even_if_it_can_be_read() -> None:
    assert parse_json_lines(b'{"is":"exit"}').damaged == 1


def test_a_segment_goes_when_all_of_it_is_forgotten_and_it_is_not_the_newest() -> None:
    deleted: list[int] = []
    pins = JournalPins(deleted.append)
    for index, segment in enumerate((1, 1, 2, 2, 3)):
        pins.pin(a_ref(index), segment)
    pins.forget(a_ref(0))
    pins.forget(a_ref(2))
    assert deleted == []
    pins.forget(a_ref(1))
    assert deleted == [1]
    pins.forget(a_ref(4))
    assert deleted == [1]
    pins.forget(a_ref(3))
    assert deleted == [1, 2]


def test_a_forgotten_newest_segment_goes_when_the_next_one_begins() -> None:
    deleted: list[int] = []
    pins = JournalPins(deleted.append)
    pins.pin(a_ref(0), 1)
    pins.forget(a_ref(0))
    assert deleted == []
    pins.pin(a_ref(1), 2)
    assert deleted == [1]


def test_forgetting_what_is_unknown_or_twice_changes_nothing() -> None:
    deleted: list[int] = []
    pins = JournalPins(deleted.append)
    pins.pin(a_ref(0), 1)
    pins.pin(a_ref(0), 1)
    pins.pin(a_ref(1), 2)
    pins.forget(a_ref(9))
    pins.forget(a_ref(0))
    pins.forget(a_ref(0))
    assert deleted == [1]
