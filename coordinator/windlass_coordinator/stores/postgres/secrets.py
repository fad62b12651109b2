"""Stored secrets, on PostgreSQL. Rows that no job owns: each is changed by one statement."""

from collections.abc import Collection
from datetime import datetime

from windlass_coordinator.stores.postgres.locks import PostgresLocks
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_coordinator.stores.sql.secrets import (
    ANY_SEALED,
    LISTED,
    OF_TENANT,
    SEALED,
    sealed_secret_of,
    secret_status_of,
    task_of_tenant_row,
)
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import TaskKey, TenantId
from windlass_proto.model.secrets import SecretStatus
from windlass_proto.model.specs import TaskSpec

_PUT = """
INSERT INTO secrets (tenant, name, kind, sealed, changed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, sealed = excluded.sealed,
  changed_at = excluded.changed_at"""


class PostgresSecrets(PostgresLocks):
    """The part of a transaction that keeps sealed secrets."""

    def put_secret(self, tenant: TenantId, secret: SealedSecret, *, now: datetime) -> None:
        self._change(_PUT, tenant, secret.name, secret.kind, secret.sealed, to_us(now))

    def delete_secret(self, tenant: TenantId, name: str) -> bool:
        return self._change_counted("DELETE FROM secrets WHERE tenant = $1 AND name = $2", tenant, name) > 0

    def list_secrets(self, tenant: TenantId) -> list[SecretStatus]:
        rows = self._rows(LISTED + ' WHERE tenant = $1 ORDER BY name COLLATE "C"', tenant)
        return [secret_status_of(row) for row in rows]

    def sealed_secrets(self, tenant: TenantId, names: Collection[str]) -> list[SealedSecret]:
        where = ' WHERE tenant = $1 AND name = ANY($2::text[]) ORDER BY name COLLATE "C"'
        return [sealed_secret_of(row) for row in self._rows(SEALED + where, tenant, sorted(set(names)))]

    def any_sealed(self) -> bytes | None:
        row = self._row(ANY_SEALED)
        return None if row is None else bytes(row[0])

    def task_of_tenant(self, task_key: TaskKey) -> tuple[TenantId, TaskSpec] | None:
        row = self._row(OF_TENANT + " WHERE t.task_key = $1", task_key)
        return None if row is None else task_of_tenant_row(row)
