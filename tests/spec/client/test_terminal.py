"""What a terminal is shown of a task's output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.cli.terminal import Sanitiser, sanitise


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;new title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$q\x1b\\x", "x"),
        ("\x1b(Bx\x1bc", "x"),
        ("50%\r60%\r\n", "50%\n60%\n"),
        ("a\x00\x08b\x7f\x9bc", "abc"),
        ("\x1b[unfinished \u202e", "nfinished "),
    ],
)
def test_sequences_and_control_characters_do_not_pass(raw: str, shown: str) -> None:
    assert sanitise(raw) == shown


def test_a_sequence_cut_in_two_does_not_pass_either() -> None:
    sanitiser = Sanitiser()
    assert sanitiser.feed(b"a\x1b[3") + sanitiser.feed(b"1mred\x1b") + sanitiser.feed(b"[0m!") == "ared!"
    assert sanitiser.finish() == ""


def test_a_character_cut_in_two_is_shown_whole() -> None:
    sanitiser = Sanitiser()
    assert sanitiser.feed("ü".encode()[:1]) + sanitiser.feed("ü".encode()[1:]) == "ü"


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    sanitiser = Sanitiser()
    assert sanitiser.feed(b"\xff\xfeok") == "\ufffd\ufffdok"


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_no_control_character_but_tab_and_line_end_ever_passes(pieces: list[bytes]) -> None:
    sanitiser = Sanitiser()
    shown = "".join(map(sanitiser.feed, pieces)) + sanitiser.finish()
    assert not [c for c in shown if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160]


@given(st.text(alphabet="ab\x1b[]0m;\x07\\\r\n", max_size=30), st.integers(0, 30))
def test_where_the_stream_is_cut_does_not_matter_to_what_is_removed(text: str, cut: int) -> None:
    sanitiser = Sanitiser()
    data = text.encode()
    pieces = sanitiser.feed(data[:cut]) + sanitiser.feed(data[cut:]) + sanitiser.finish()
    assert pieces == sanitise(text)
