"""Durations and sizes as people write them."""

from datetime import timedelta

import pytest

from windlass.quantities import format_duration, format_exactly, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("6h", 21600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("86400", 86400),
        (7, 7),
        (0.5, 0.5),
        (-1, -1),
    ],
)
def test_a_duration_is_read_with_units_or_as_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "10x", "m", "1h30", "-5s", "1:30", True],
)
def test_what_is_no_duration_is_refused_with_a_right_form(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 30m or 1h30m"):
        parse_duration(text)


def test_a_duration_longer_than_a_life_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 100 years"):
        parse_duration("9999999999h")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512MiB", 512 * 1024**2),
        ("2G", 2 * 1024**3),
        ("2g", 2 * 1024**3),
        ("1KB", 1000),
        ("1.5 KiB", 1536),
        ("10", 10),
        ("10B", 10),
        (4096, 4096),
    ],
)
def test_a_size_is_read_with_units_or_as_bytes(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "2Q", "MiB", "iB", "10iB", "1,5G", True])
def test_what_is_no_size_is_refused_with_a_right_form(text: str) -> None:
    with pytest.raises(ValueError, match="such as 512MiB or 2G"):
        parse_size(text)


def test_durations_are_shown_with_two_parts_at_most() -> None:
    shown = [format_duration(timedelta(seconds=s)) for s in (0.34, 12.2, 65, 11220)]
    assert shown == ["0.3s", "12s", "1m 05s", "3h 07m"]


@pytest.mark.parametrize("text", ["2s", "300ms", "1h30m", "1d", "1m1s500ms", "0s"])
def test_a_duration_is_written_back_as_it_was_typed(text: str) -> None:
    assert format_exactly(parse_duration(text)) == text


def test_sizes_are_shown_with_one_digit_after_the_point() -> None:
    assert [format_size(n) for n in (17, 1536, 3 * 1024**2)] == ["17 B", "1.5 KiB", "3.0 MiB"]
