"""Times: aware UTC `datetime` and `timedelta` <-> the wire's Timestamp and Duration."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from windlass_proto.errors import InvalidRequest

_LONGEST_S = int(timedelta.max.total_seconds())


def duration_to_wire(duration: timedelta) -> Duration:
    whole_s = duration // timedelta(seconds=1)
    rest = duration - timedelta(seconds=whole_s)
    if whole_s < 0 and rest:  # both parts of a Duration must have one sign
        whole_s, rest = whole_s + 1, rest - timedelta(seconds=1)
    return Duration(seconds=whole_s, nanos=rest // timedelta(microseconds=1) * 1000)


def duration_from_wire(message: Duration) -> timedelta:
    """To the microsecond. One too long for a timedelta becomes the longest, for a check to refuse."""
    if abs(message.seconds) >= _LONGEST_S:
        return timedelta.max if message.seconds > 0 else timedelta.min
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def timestamp_to_wire(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def timestamp_from_wire(message: Timestamp) -> datetime:
    """Raises InvalidRequest for a time outside the years 1 to 9999."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as problem:
        raise InvalidRequest(f"a time is out of range: {message.seconds} seconds since 1970") from problem
