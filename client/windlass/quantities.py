"""Durations and sizes as people write them: `90s`, `1h30m`, `512MiB`.

Reading refuses what it does not understand: a timeout that is silently wrong costs a night.
"""

import math
import re
from datetime import timedelta

_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(iB|B)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LONGEST_S = 100 * 366 * 86400.0


def parse_duration(value: str | int | float) -> timedelta:
    """`90s`, `30m`, `1h30m`, `250ms`, or a number of seconds. Raises ValueError that shows a right form."""
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"must be a duration such as 90s, 30m or 1h30m, or seconds (is {value!r})")
    if not -_LONGEST_S <= seconds <= _LONGEST_S:
        raise ValueError(f"must be at most 100 years (is {value!r})")
    return timedelta(seconds=seconds)


def parse_size(value: str | int) -> int:
    """`512MiB`, `2G`, or a number of bytes; K, M, G, T and KiB.. count by 1024, KB, MB.. by 1000."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a size such as 512MiB or 2G, or bytes (is {value!r})")
    number, prefix, suffix = match.group(1), match.group(2).lower(), (match.group(3) or "").lower()
    if suffix == "ib" and not prefix:
        raise ValueError(f"must be a size such as 512MiB or 2G, or bytes (is {value!r})")
    base = 1000 if suffix == "b" else 1024
    return round(float(number) * float(base ** _POWERS[prefix]))


def format_duration(value: timedelta) -> str:
    """For people: `0.3s`, `12s`, `4m 05s`, `3h 07m`."""
    seconds = value.total_seconds()
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def format_exactly(value: timedelta) -> str:
    """As a person would have typed it: `2s`, `1h30m`, `300ms`; `parse_duration` reads it back."""
    left = round(value / timedelta(milliseconds=1))
    parts = []
    for unit, length_s in sorted(_DURATION_UNITS_S.items(), key=lambda item: -item[1]):
        count, left = divmod(left, round(length_s * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(size_bytes: int) -> str:
    """For people: `17 B`, `2.5 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def _seconds(value: str | int | float) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    if not text or _DURATION_PART.sub("", text):
        return None
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))
