"""What tasks need to reach other systems: kept sealed by the coordinator and named in specifications."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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
