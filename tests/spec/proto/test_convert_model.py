"""Whatever crosses the wire arrives as it was sent; whatever has no meaning is refused by name.

The pairs are found in `windlass_proto.convert` itself and their values are made from their types, so that a
new message and a new field are tried without anybody thinking of it.
"""

import inspect
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.generated import values
from windlass_proto import convert
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.events import AttemptEvent
from windlass_proto.model.verdicts import EventVerdict

PAIRS = sorted(name.removesuffix("_to_wire") for name in convert.__all__ if name.endswith("_to_wire"))
LISTS: dict[str, Any] = {"events": AttemptEvent, "event_verdicts": EventVerdict}


def both_ways(pair: str) -> tuple[Any, Any]:
    return getattr(convert, f"{pair}_to_wire"), getattr(convert, f"{pair}_from_wire")


def what_it_makes(pair: str) -> Any:
    return typing.get_type_hints(both_ways(pair)[1])["return"]


def test_every_way_to_the_wire_has_a_way_back() -> None:
    back = sorted(name.removesuffix("_from_wire") for name in convert.__all__ if name.endswith("_from_wire"))
    assert back == PAIRS


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair not in LISTS])
def test_a_value_arrives_as_it_was_sent(pair: str) -> None:
    to_wire, from_wire = both_ways(pair)

    @examples(25)
    @given(values(what_it_makes(pair)))
    def round_trip(value: Any) -> None:
        message = to_wire(value)
        assert from_wire(type(message).FromString(message.SerializeToString())) == value

    round_trip()


@pytest.mark.parametrize("pair", sorted(LISTS))
def test_a_list_arrives_as_it_was_sent(pair: str) -> None:
    to_wire, from_wire = both_ways(pair)

    @examples(25)
    @given(st.lists(values(LISTS[pair]), max_size=6))
    def round_trip(value: list[Any]) -> None:
        assert from_wire(to_wire(value)) == value

    round_trip()


def _message_of(pair: str) -> Any:
    """The message class that the pair speaks of, from the annotation of its way back."""
    parameter = next(iter(inspect.signature(both_ways(pair)[1]).parameters))
    return typing.get_type_hints(both_ways(pair)[1])[parameter]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair not in LISTS])
def test_a_message_of_a_stranger_is_read_or_refused_but_nothing_else_happens(pair: str) -> None:
    """Any bytes that parse as the message: numbers without a meaning, fields left out, times beyond time."""
    message_class = _message_of(pair)

    @examples(40)
    @given(st.binary(max_size=60))
    def read(data: bytes) -> None:
        message = message_class()
        try:
            message.ParseFromString(data)
        except Exception:  # noqa: BLE001  (protobuf's own refusal, before any code of ours)
            return
        try:
            both_ways(pair)[1](message)
        except InvalidRequest:
            pass

    read()


codecs = st.sampled_from(
    [one for one in map(convert.__dict__.get, convert.__all__) if isinstance(one, convert.EnumCodec)]
)


@examples(60)
@given(codecs, st.integers(-(2**31), 2**31 - 1))
def test_a_number_of_an_enum_has_one_meaning_or_is_refused(codec: Any, number: int) -> None:
    try:
        assert codec.to_wire(codec.from_wire(number)) == number
    except InvalidRequest:
        pass
