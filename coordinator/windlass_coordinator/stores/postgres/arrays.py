"""Columns of many rows as array literals: a set of rows travels as one value for each column.

The driver could do it too, at ten times the cost: it asks each element for its type.
"""

from collections.abc import Iterable, Sequence
from typing import Any


def ints(values: Iterable[int | None]) -> str:
    """For `$1::bigint[]`."""
    return "{" + ",".join(["NULL" if value is None else str(int(value)) for value in values]) + "}"


# Rows are untyped: they go to the database as they are.
def int_columns(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Rows of numbers as one array for each column."""
    return [ints(column) for column in zip(*rows, strict=True)]


def texts(values: Iterable[str | None]) -> str:
    """For `$1::text[]`."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
