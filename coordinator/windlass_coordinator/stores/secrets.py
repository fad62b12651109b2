"""What a store must know of stored secrets; a part of `base.Transaction`. It never sees one open."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from windlass_proto.model.ids import TaskKey, TenantId
from windlass_proto.model.secrets import SecretKind, SecretStatus
from windlass_proto.model.specs import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """As it lies in the database."""

    name: str
    kind: SecretKind
    sealed: bytes


class SecretRecords(Protocol):
    """Secrets of tenants."""

    def put_secret(self, tenant: TenantId, secret: SealedSecret, *, now: datetime) -> None:
        """In place of one of this name, if there is one."""

    def delete_secret(self, tenant: TenantId, name: str) -> bool:
        """Whether there was one."""

    def list_secrets(self, tenant: TenantId) -> list[SecretStatus]:
        """By name."""

    def sealed_secrets(self, tenant: TenantId, names: Collection[str]) -> list[SealedSecret]:
        """Those that there are."""

    def any_sealed(self) -> bytes | None:
        """One of whatever tenant: shows under which master key secrets are sealed here."""

    def task_of_tenant(self, task_key: TaskKey) -> tuple[TenantId, TaskSpec] | None:
        """Whose task it is, and what it asks for."""
