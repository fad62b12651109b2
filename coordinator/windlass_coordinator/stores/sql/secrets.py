"""Rows of stored secrets as values, for both databases."""

from typing import Any

from windlass_coordinator.stores.secrets import SealedSecret
from windlass_coordinator.stores.sql.times import from_us
from windlass_proto.model.ids import TenantId
from windlass_proto.model.secrets import SecretKind, SecretStatus
from windlass_proto.model.specs import TaskSpec, task_from_json

LISTED = "SELECT name, kind, changed_at FROM secrets"
SEALED = "SELECT name, kind, sealed FROM secrets"
ANY_SEALED = "SELECT sealed FROM secrets LIMIT 1"
OF_TENANT = "SELECT j.tenant, t.spec FROM tasks t JOIN jobs j ON j.job_key = t.job_key"


# A row is untyped: the driver knows no column types.
def secret_status_of(row: Any) -> SecretStatus:
    return SecretStatus(name=row[0], kind=SecretKind(row[1]), changed_at=from_us(row[2]))


def sealed_secret_of(row: Any) -> SealedSecret:
    return SealedSecret(name=row[0], kind=SecretKind(row[1]), sealed=bytes(row[2]))


def task_of_tenant_row(row: Any) -> tuple[TenantId, TaskSpec]:
    return TenantId(row[0]), task_from_json(bytes(row[1]))
