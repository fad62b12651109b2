"""Stored secrets, on SQLite."""

import sqlite3
from collections.abc import Collection
from datetime import datetime

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


class SqliteSecrets:
    """The part of a transaction that keeps sealed secrets."""

    _db: sqlite3.Connection

    def put_secret(self, tenant: TenantId, secret: SealedSecret, *, now: datetime) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO secrets (tenant, name, kind, sealed, changed_at) VALUES (?, ?, ?, ?, ?)",
            (tenant, secret.name, secret.kind, secret.sealed, to_us(now)),
        )

    def delete_secret(self, tenant: TenantId, name: str) -> bool:
        gone = self._db.execute("DELETE FROM secrets WHERE tenant = ? AND name = ?", (tenant, name))
        return gone.rowcount > 0

    def list_secrets(self, tenant: TenantId) -> list[SecretStatus]:
        rows = self._db.execute(LISTED + " WHERE tenant = ? ORDER BY name", (tenant,))
        return [secret_status_of(row) for row in rows]

    def sealed_secrets(self, tenant: TenantId, names: Collection[str]) -> list[SealedSecret]:
        one = SEALED + " WHERE tenant = ? AND name = ?"
        rows = [self._db.execute(one, (tenant, name)).fetchone() for name in sorted(set(names))]
        return [sealed_secret_of(row) for row in rows if row is not None]

    def any_sealed(self) -> bytes | None:
        row = self._db.execute(ANY_SEALED).fetchone()
        return None if row is None else bytes(row[0])

    def task_of_tenant(self, task_key: TaskKey) -> tuple[TenantId, TaskSpec] | None:
        row = self._db.execute(OF_TENANT + " WHERE t.task_key = ?", (task_key,)).fetchone()
        return None if row is None else task_of_tenant_row(row)
