"""Which incarnation a restored store begins (decision 0008)."""

from datetime import UTC, datetime, timedelta

from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.incarnations import INCARNATION_END, next_incarnation

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
YEARS_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)


def test_two_restores_of_the_same_backup_differ_though_none_knows_of_the_other() -> None:
    first, second = next_incarnation([1], now=NOW), next_incarnation([1], now=NOW + timedelta(minutes=1))
    assert first is not None
    assert second is not None
    assert 1 < first < second


def test_two_restores_in_the_same_minute_differ_when_the_first_left_its_note() -> None:
    first = next_incarnation([1], now=NOW)
    assert first is not None
    assert next_incarnation([1, first], now=NOW) == first + 1


def test_it_grows_though_the_clock_was_set_back() -> None:
    first = next_incarnation([1], now=NOW)
    assert first is not None
    assert next_incarnation([first], now=NOW - timedelta(days=300)) == first + 1


def test_a_clock_that_is_years_ahead_uses_up_no_numbers() -> None:
    assert next_incarnation([7], now=YEARS_AHEAD) == 8


def test_the_last_fence_of_the_last_incarnation_fits_into_its_column() -> None:
    assert next_incarnation([INCARNATION_END - 2], now=NOW) == INCARNATION_END - 1
    assert next_incarnation([INCARNATION_END - 1], now=NOW) is None
    assert fence_floor(INCARNATION_END - 1) + (1 << 40) - 1 == (1 << 63) - 1
