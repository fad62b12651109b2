"""The form of tokens, and what is kept of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_coordinator.auth.tokens import (
    RANDOM_BYTES,
    Token,
    TokenKind,
    digest,
    has_digest,
    new_token,
    parse_token,
)

RANDOMNESS = bytes(range(RANDOM_BYTES))

a_token = st.builds(
    lambda kind, randomness: new_token(kind, randomness=randomness),
    st.sampled_from(TokenKind),
    st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES),
)


@given(a_token)
def test_a_token_is_read_back_from_its_text(token: Token) -> None:
    assert parse_token(token.text) == token


@given(a_token, st.data())
def test_one_changed_character_is_noticed(token: Token, data: st.DataObject) -> None:
    place = data.draw(st.integers(min_value=0, max_value=len(token.text) - 1))
    character = data.draw(st.sampled_from([c for c in "0Aaz_-é" if c != token.text[place]]))

    assert parse_token(token.text[:place] + character + token.text[place + 1 :]) is None


def test_the_prefix_tells_what_a_token_is_for() -> None:
    texts = {kind: new_token(kind, randomness=RANDOMNESS).text for kind in TokenKind}

    assert {kind: text[:4] for kind, text in texts.items()} == {
        TokenKind.ADMIN: "wla_",
        TokenKind.USER: "wlu_",
        TokenKind.JOIN: "wlj_",
        TokenKind.NODE: "wln_",
    }


def test_the_text_of_a_token_is_prefix_id_secret_and_checksum() -> None:
    assert new_token(TokenKind.ADMIN, randomness=RANDOMNESS).text == (
        "wla_0001020304050607_1u8QmlquE1rQpeqoulx6MZVGVGgufeog3UsDEHmrG2p2xqU9O"
    )


@pytest.mark.parametrize("text", ["", "wla_", "Bearer x", "wlx_" + "0" * 66, " " * 80])
def test_other_texts_are_no_tokens(text: str) -> None:
    assert parse_token(text) is None


def test_a_token_takes_exactly_its_randomness() -> None:
    with pytest.raises(ValueError, match="40 random bytes, not 39"):
        new_token(TokenKind.USER, randomness=RANDOMNESS[1:])


def test_only_the_right_secret_has_the_stored_digest() -> None:
    token = new_token(TokenKind.USER, randomness=RANDOMNESS)
    other = new_token(TokenKind.USER, randomness=RANDOMNESS[::-1])

    assert has_digest(token, digest(token.secret))
    assert not has_digest(other, token.digest)


def test_the_digest_is_sha256() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_printed_token_does_not_show_its_secret() -> None:
    token = new_token(TokenKind.ADMIN, randomness=RANDOMNESS)

    assert token.secret not in repr(token)
