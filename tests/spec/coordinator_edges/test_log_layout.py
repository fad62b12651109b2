"""Offsets of produced bytes, positions of stored bytes, and gaps between them."""

from hypothesis import given
from hypothesis import strategies as st

from windlass_coordinator.logstore.base import Gap
from windlass_coordinator.logstore.layout import Layout, StoredRun, gap_line, read_gap_lines


def a_gap(offset: int, length: int) -> Gap:
    return Gap(offset=offset, length=length, reason="quota")


TWO_GAPS = Layout([a_gap(100, 50), a_gap(300, 10)])


def test_without_gaps_an_offset_is_a_position() -> None:
    assert Layout().position(7) == 7
    assert Layout().end(9) == 9


def test_positions_behind_gaps_are_lower_by_what_was_lost() -> None:
    positions = [TWO_GAPS.position(offset) for offset in (0, 99, 100, 149, 150, 299, 300, 310, 400)]

    assert positions == [0, 99, 100, 100, 100, 249, 250, 250, 340]


def test_the_end_counts_lost_bytes_too() -> None:
    assert TWO_GAPS.end(250) == 310


def test_a_run_of_bytes_ends_where_the_next_gap_begins() -> None:
    assert TWO_GAPS.at(160, end=400) == StoredRun(position=110, length=140)


def test_inside_a_gap_lies_the_rest_of_the_gap() -> None:
    assert TWO_GAPS.at(120, end=400) == a_gap(120, 30)


def test_at_the_end_and_beyond_lies_nothing() -> None:
    assert TWO_GAPS.at(400, end=400) == StoredRun(position=340, length=0)
    assert TWO_GAPS.at(999, end=400) == StoredRun(position=939, length=0)


def test_neighbouring_gaps_are_told_one_after_the_other() -> None:
    layout = Layout([a_gap(10, 5), a_gap(15, 5)])

    assert layout.at(15, end=20) == a_gap(15, 5)
    assert layout.position(20) == 10


def test_gaps_below_an_end_leave_out_those_that_begin_at_it() -> None:
    assert TWO_GAPS.below(300) == (a_gap(100, 50),)
    assert TWO_GAPS.below(301) == (a_gap(100, 50), a_gap(300, 10))


def test_gap_lines_are_read_back() -> None:
    content = gap_line(a_gap(100, 50)) + gap_line(a_gap(300, 10))

    layout, sound = read_gap_lines(content, stored_bytes=250)

    assert (layout.gaps, sound) == (TWO_GAPS.gaps, len(content))


def test_a_torn_last_line_is_cut_off() -> None:
    first = gap_line(a_gap(100, 50))

    layout, sound = read_gap_lines(first + gap_line(a_gap(300, 10))[:-1], stored_bytes=250)

    assert (layout.gaps, sound) == ((a_gap(100, 50),), len(first))


def test_a_gap_behind_bytes_that_are_not_there_is_cut_off() -> None:
    first = gap_line(a_gap(100, 50))

    layout, sound = read_gap_lines(first + gap_line(a_gap(300, 10)), stored_bytes=249)

    assert (layout.gaps, sound) == ((a_gap(100, 50),), len(first))


def test_lines_that_are_no_gaps_end_the_sound_part() -> None:
    for line in (
        b"\n",
        b"[]\n",
        b'{"offset": 1}\n',
        b'{"offset": 0, "length": 0, "reason": ""}\n',
        b"\xff\n",
    ):
        assert read_gap_lines(line + gap_line(a_gap(0, 1)), stored_bytes=9)[1] == 0


pieces = st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=20)), max_size=30)


@given(pieces)
def test_walking_a_stream_gives_back_every_produced_byte_or_its_gap(parts: list[tuple[bool, int]]) -> None:
    produced: list[int | None] = []
    stored: list[int] = []
    layout = Layout()
    for is_gap, length in parts:
        if is_gap:
            layout = layout.with_gap(a_gap(len(produced), length))
            produced += [None] * length
        else:
            fresh = list(range(len(produced), len(produced) + length))
            produced += fresh
            stored += fresh
    end = layout.end(len(stored))

    seen: list[int | None] = []
    while len(seen) < end:
        found = layout.at(len(seen), end=end)
        if isinstance(found, Gap):
            seen += [None] * found.length
        else:
            seen += stored[found.position : found.position + found.length]
    assert seen == produced
