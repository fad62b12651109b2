"""What tasks need to reach other systems: kept sealed by the coordinator and named in specifications.

A secret is a JSON document whose form is that of its kind. No message about a document ever repeats what is
in it: only names of keys, which people have to see to mend it.
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from windlass_proto.model.specs import TaskSpec
from windlass_proto.model.storage import StorageProfile, profile_from_table


class SecretKind(StrEnum):
    STORAGE = "storage"
    """An object store and its keys: the fields of a StorageProfile."""
    LOGIN = "login"
    """`username` and `password` of a container registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretStatus:
    """What is told of a secret; never its value."""

    name: str
    kind: SecretKind
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpenedSecret:
    """On its way to the node that runs an attempt whose specification names it."""

    name: str
    kind: SecretKind
    document: bytes
    """JSON, as it was put."""

    def __repr__(self) -> str:
        return f"OpenedSecret(name={self.name!r}, kind={self.kind!r}, value hidden)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Login:
    """Of a container registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(value hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSecret:
    """A place of a specification that names a secret."""

    field: str
    """Of the task, such as `inputs[0].storage`."""
    name: str
    kind: SecretKind


def secrets_named_by(task: TaskSpec) -> tuple[NamedSecret, ...]:
    """In the order of the specification."""
    storages = [
        ("storage", task.storage),
        *((f"inputs[{n}].storage", taken.storage) for n, taken in enumerate(task.inputs)),
        *((f"outputs[{n}].storage", given.storage) for n, given in enumerate(task.outputs)),
    ]
    named = [NamedSecret(field=f, name=name, kind=SecretKind.STORAGE) for f, name in storages if name]
    if task.container is not None and task.container.login:
        named.append(NamedSecret(field="container.login", name=task.container.login, kind=SecretKind.LOGIN))
    return tuple(named)


def document_of(value: StorageProfile | Login) -> tuple[SecretKind, bytes]:
    """How it is stored; `read_storage` and `read_login` are the way back."""
    kind = SecretKind.STORAGE if isinstance(value, StorageProfile) else SecretKind.LOGIN
    table = {field.name: getattr(value, field.name) for field in fields(value)}
    return kind, json.dumps(table).encode()


def read_storage(document: bytes) -> StorageProfile:
    """Raises ValueError that names the key that is wrong."""
    profile = profile_from_table(_table(document), where="")
    if profile.endpoint and not profile.endpoint.startswith(("http://", "https://")):
        raise ValueError("endpoint: must begin with http:// or https://, or be empty")
    if "@" in profile.endpoint:
        raise ValueError("endpoint: must not hold credentials; they are access_key and secret_key")
    for key in ("endpoint", "region", "access_key", "secret_key"):
        value: str = getattr(profile, key)
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError(f"{key}: must hold printable ASCII characters without spaces only")
    if bool(profile.access_key) != bool(profile.secret_key):
        raise ValueError("access_key and secret_key: both or none must be given")
    return profile


def read_login(document: bytes) -> Login:
    """Raises ValueError that names the key that is wrong."""
    table = _table(document)
    for key in ("username", "password"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise ValueError(f"{key}: must be a text that is not empty")
        if "\0" in table[key]:
            raise ValueError(f"{key}: must not contain a NUL character")
    unknown = sorted(table.keys() - {"username", "password"})
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key; known are username, password")
    if ":" in table["username"] or not table["username"].isprintable():
        raise ValueError("username: must hold printable characters and no ':'")
    return Login(username=table["username"], password=table["password"])


def _table(document: bytes) -> dict[str, Any]:
    """Any: whatever JSON holds; checked key by key."""
    try:
        table = json.loads(document)
    except (ValueError, RecursionError):
        # The library's own words quote the document in some cases.
        raise ValueError("must be a JSON object") from None
    if not isinstance(table, dict):
        raise ValueError("must be a JSON object")
    return table
