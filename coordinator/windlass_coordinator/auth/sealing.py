"""Sealing: what tenants store is encrypted under a key that is not in the database.

AES-256-GCM. Each tenant has a data key of its own, derived from the master key; tenant, name and kind are
bound to the sealed bytes, so that rows that were exchanged by hand do not open. A stolen database or backup
holds nothing that can be used without the master key file.

The file holds one key a line, in hex. The first seals; the others only open what was sealed under them, so
that a key can be replaced without a moment at which nothing opens.
"""

import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from windlass_proto.errors import Conflict, Unavailable
from windlass_proto.model.ids import TenantId
from windlass_proto.model.secrets import SecretKind

MASTER_KEY_FILE = "master.key"

_FORM = b"\x01"
_KEY_BYTES = 32
_ID_BYTES = 8
_NONCE_BYTES = 12
_LINE = re.compile(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}")
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class OtherMasterKey(Unavailable):
    """Sealed under a master key that this coordinator does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is bound to a secret besides its bytes."""

    tenant: TenantId
    name: str
    kind: SecretKind


class Sealer:
    """Seals and opens with the keys of one master key file."""

    def __init__(self, keys: tuple[bytes, ...], *, origin: str) -> None:
        """The first of `keys` seals; `origin` is where they come from, for messages."""
        self._keys = {_id_of(key): key for key in keys}
        self._first = _id_of(keys[0])
        self._origin = origin

    def __repr__(self) -> str:
        return f"Sealer({self._origin!r}, keys hidden)"

    def __str__(self) -> str:
        return self._origin

    def seal(self, document: bytes, seal: Seal) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = AESGCM(_data_key(self._keys[self._first], seal.tenant))
        return _FORM + self._first + nonce + cipher.encrypt(nonce, document, _bound(seal))

    def open(self, sealed: bytes, seal: Seal) -> bytes:
        """Raises OtherMasterKey, or Conflict for bytes that were changed since they were sealed."""
        if not self.can_open(sealed):
            raise OtherMasterKey(
                f"the stored secret {seal.name!r} is sealed under a master key that is not in {self._origin}:"
                " put the secret again, or let the operator bring the right key file"
            )
        start = len(_FORM) + _ID_BYTES
        key_id, nonce = sealed[len(_FORM) : start], sealed[start : start + _NONCE_BYTES]
        cipher = AESGCM(_data_key(self._keys[key_id], seal.tenant))
        try:
            return cipher.decrypt(nonce, sealed[start + _NONCE_BYTES :], _bound(seal))
        except InvalidTag:
            raise Conflict(
                f"the stored secret {seal.name!r} was changed in the database: put it again"
            ) from None

    def can_open(self, sealed: bytes) -> bool:
        """Whether it was sealed under one of these keys."""
        return sealed[: len(_FORM)] == _FORM and sealed[len(_FORM) : len(_FORM) + _ID_BYTES] in self._keys


def open_sealer(file: Path) -> Sealer:
    """With the keys of the file, which is made when there is none. Raises Conflict for a file that is no such
    one, or that others can read."""
    try:
        _make(file)
    except FileExistsError:
        pass
    except OSError as problem:
        raise Conflict(f"master key file {file}: cannot be made: {problem.strerror}") from problem
    return Sealer(read_keys(file), origin=str(file))


def read_keys(file: Path) -> tuple[bytes, ...]:
    """Raises Conflict for a file that is no key file, or that others can read."""
    try:
        if stat.S_IMODE(file.stat().st_mode) & _OPEN_TO_OTHERS:
            raise Conflict(f"master key file {file}: others can read it: chmod 600 {file}")
        lines = file.read_text(encoding="ascii").split()
    except OSError as problem:
        raise Conflict(f"master key file {file}: cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError:
        lines = []
    if not lines or not all(map(_LINE.fullmatch, lines)):
        raise Conflict(f"master key file {file}: must hold keys of {2 * _KEY_BYTES} hex digits, one a line")
    return tuple(bytes.fromhex(line) for line in lines)


def _make(file: Path) -> None:
    """Whole or not at all: half a key would be one that nobody can find again. Raises FileExistsError."""
    if file.exists():
        raise FileExistsError
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as out:
            out.write(secrets.token_hex(_KEY_BYTES) + "\n")
            out.flush()
            os.fsync(out.fileno())
        # Unlike a rename this takes no other coordinator's file away.
        os.link(draft, file)
    finally:
        draft.unlink()


def _id_of(key: bytes) -> bytes:
    """Which key it is; tells nothing of it."""
    return hashlib.sha256(b"windlass master key id" + key).digest()[:_ID_BYTES]


def _data_key(master: bytes, tenant: TenantId) -> bytes:
    info = b"windlass data key " + tenant.encode()
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(master)


def _bound(seal: Seal) -> bytes:
    return b"\0".join(part.encode() for part in (seal.tenant, seal.kind, seal.name))
