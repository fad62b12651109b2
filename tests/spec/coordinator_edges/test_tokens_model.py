"""Texts from strangers: page tokens, bearer tokens, and who may call what."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_coordinator.auth.tokens import RANDOM_BYTES, TokenKind, has_digest, new_token, parse_token
from windlass_coordinator.rpc.paging import make_token, page_size, read_token
from windlass_proto.errors import InvalidRequest

places = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4)
nested = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)


@examples(60)
@given(places)
def test_a_page_goes_on_where_the_one_before_ended(place: list[int]) -> None:
    assert read_token(make_token(*place), length=len(place)) == tuple(place)


@examples(60)
@given(
    st.text()
    | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    | nested.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode()),
    st.integers(1, 3),
)
def test_any_other_page_token_is_refused_and_nothing_else_happens(text: str, length: int) -> None:
    try:
        place = read_token(text, length=length)
    except InvalidRequest:
        return
    assert place is None if not text else len(place or ()) == length


@examples(60)
@given(st.integers())
def test_a_page_has_a_size_that_is_bounded(asked: int) -> None:
    try:
        assert 1 <= page_size(asked) <= 1000
    except InvalidRequest:
        assert not 0 <= asked <= 1000


@examples(60)
@given(st.sampled_from(TokenKind), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_token_is_read_as_it_was_made(kind: TokenKind, randomness: bytes) -> None:
    token = new_token(kind, randomness=randomness)
    assert parse_token(token.text) == token
    assert has_digest(token, token.digest)
    assert token.secret not in repr(token)


@examples(60)
@given(st.data(), st.sampled_from(TokenKind), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_token_with_one_changed_character_is_none(
    data: st.DataObject, kind: TokenKind, randomness: bytes
) -> None:
    text = new_token(kind, randomness=randomness).text
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[position]))
    assert parse_token(text[:position] + other + text[position + 1 :]) is None


@examples(40)
@given(st.text() | st.from_regex(r"wl[aujn]_[0-9a-f]{16}_[0-9A-Za-z]{49}"))
def test_an_invented_token_is_none(text: str) -> None:
    parsed = parse_token(text)
    assert parsed is None or parsed.text == text
