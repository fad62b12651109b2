"""Times in the database: microseconds since 1970 UTC."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(when: datetime) -> int:
    """An aware time as a number."""
    return (when - _EPOCH) // _MICROSECOND


def from_us(value: int) -> datetime:
    """The number as an aware time."""
    return _EPOCH + value * _MICROSECOND


def from_us_or_none(value: int | None) -> datetime | None:
    """The same where the time may be unknown."""
    return None if value is None else from_us(value)
