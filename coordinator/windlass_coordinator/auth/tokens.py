"""Bearer tokens: `wla_<id>_<secret><checksum>`.

The id finds the record, the secret proves it, and only the secret's digest is stored. The checksum lets a
damaged or invented token be refused without a look at the store, and lets scanners of leaked secrets
recognise a real one.
"""

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field
from enum import StrEnum

ID_BYTES = 8
SECRET_BYTES = 32
RANDOM_BYTES = ID_BYTES + SECRET_BYTES
"""Randomness that one token takes."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS = 43
"""Digits of 256 bits in base 62."""
_CHECKSUM_CHARS = 6
_FORM = re.compile(
    rf"(wl[aujn])_([0-9a-f]{{16}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})"
)


class TokenKind(StrEnum):
    """What a token is for; the value is its prefix."""

    ADMIN = "wla"
    """Everything, in all tenants' name."""
    USER = "wlu"
    """Jobs of one tenant."""
    JOIN = "wlj"
    """Turns a machine into a node of one cluster; good for nothing else."""
    NODE = "wln"
    """The agent protocol, as one node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A whole token; only its owner has it."""

    kind: TokenKind
    token_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """What the owner keeps and sends."""
        body = f"{self.kind.value}_{self.token_id}_{self.secret}"
        return body + _checksum(body)

    @property
    def digest(self) -> str:
        """What is stored."""
        return digest(self.secret)


def new_token(kind: TokenKind, *, randomness: bytes) -> Token:
    """A token made of `RANDOM_BYTES` random bytes."""
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"a token takes {RANDOM_BYTES} random bytes, not {len(randomness)}")
    number = int.from_bytes(randomness[ID_BYTES:], "big")
    return Token(
        kind=kind, token_id=randomness[:ID_BYTES].hex(), secret=_base62(number, length=_SECRET_CHARS)
    )


def parse_token(text: str) -> Token | None:
    """The token that `text` is; None when it has not the form or not the checksum of one."""
    found = _FORM.fullmatch(text)
    if found is None or not text.isascii():
        return None
    prefix, token_id, secret, checksum = found.groups()
    if checksum != _checksum(text[:-_CHECKSUM_CHARS]):
        return None
    return Token(kind=TokenKind(prefix), token_id=token_id, secret=secret)


def digest(secret: str) -> str:
    """SHA-256 in hex; a secret of 256 random bits needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def has_digest(token: Token, expected: str) -> bool:
    """Whether the token's secret is the one whose digest was stored; takes the same time either way."""
    return hmac.compare_digest(token.digest.encode(), expected.encode())


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), length=_CHECKSUM_CHARS)


def _base62(number: int, *, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
