"""Any value of our frozen dataclasses, made from their types: a new field is tried as soon as it is there.

Numbers stay within what every integer of the wire holds, texts hold what a text of the wire may hold.
"""

import dataclasses
import types
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.events import Exited, Started
from windlass_proto.model.ids import ClusterName

counts = st.integers(0, 2**31 - 1)
large_counts = st.integers(0, 2**62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
durations = st.timedeltas(timedelta(days=-4000), timedelta(days=4000))
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001  (aware a moment later)

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    bytes: st.binary(max_size=8),
    bool: st.booleans(),
    int: counts,
    float: st.floats(0, 1e12),
    timedelta: durations,
    datetime: times,
    type(None): st.none(),
    # A message without a cluster means the default one.
    ClusterName: texts.filter(bool),
}


def values(kind: Any) -> st.SearchStrategy[Any]:  # Any: a type as annotations have it
    """Values of a type that annotations of the model are made of."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, NewType):
        return large_counts if kind.__supertype__ is int else values(kind.__supertype__)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin in (Mapping, dict):
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return _dataclass(kind)


@cache
def _dataclass(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
    if kind is Exited:
        return st.builds(_one_ending, st.booleans(), **fields | {"code": counts, "signal": counts})
    if kind is Started:
        return st.builds(
            kind, image_digest=st.just("") | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
        )
    if kind is AssignmentBatch:
        columns = {"index": counts, "attempt": counts, "fence": large_counts}
        rows = st.lists(st.tuples(*columns.values()), max_size=4)
        return st.builds(_of_equal_columns, rows, **fields)
    return st.builds(kind, **fields)


def _one_ending(by_code: bool, **fields: Any) -> Exited:
    """A command ends by a code or by a signal."""
    return Exited(**fields | {"signal" if by_code else "code": None})


def _of_equal_columns(rows: list[tuple[int, int, int]], **fields: Any) -> AssignmentBatch:
    index, attempt, fence = zip(*rows, strict=True) if rows else ((), (), ())
    return AssignmentBatch(**fields | {"index": index, "attempt": attempt, "fence": fence})
