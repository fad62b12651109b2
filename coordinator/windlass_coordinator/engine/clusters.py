"""Clusters and the tokens with which nodes join them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from windlass_coordinator.core.records import ClusterKey
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.machines import Credential
from windlass_proto.errors import Conflict, InvalidRequest, NotFound
from windlass_proto.model.ids import TenantId

LONGEST_TOKEN_LIFE = timedelta(days=7)
MOST_TOKEN_USES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJoinToken:
    """A join token on its way into the store; id and digest are made by the caller."""

    kind: str
    token_id: str
    digest: str
    cluster: str
    uses: int
    valid_for: timedelta


def create_cluster(
    tx: Transaction, tenant: TenantId, name: str, *, description: str, now: datetime
) -> ClusterKey:
    """Raises Conflict when there is one of this name."""
    if tx.cluster_key(tenant, name) is not None:
        raise Conflict(f"there is a cluster {name!r} already")
    return tx.add_cluster(tenant, name, description=description, now=now)


def delete_cluster(tx: Transaction, tenant: TenantId, name: str) -> None:
    """Raises NotFound, or Conflict while it has nodes or work."""
    key = find_cluster(tx, tenant, name)
    in_use = tx.cluster_in_use(key)
    if in_use is not None:
        raise Conflict(f"cluster {name!r} still has {in_use}: end them first")
    tx.delete_cluster(key)


def create_join_token(tx: Transaction, tenant: TenantId, token: NewJoinToken, *, now: datetime) -> datetime:
    """Stores the token's digest; returns when it expires."""
    if not 1 <= token.uses <= MOST_TOKEN_USES:
        raise InvalidRequest(f"uses: must be between 1 and {MOST_TOKEN_USES} (is {token.uses})")
    if not timedelta(0) < token.valid_for <= LONGEST_TOKEN_LIFE:
        raise InvalidRequest(f"valid_for: must be above 0 and at most {LONGEST_TOKEN_LIFE.days} days")
    expires = now + token.valid_for
    credential = Credential(
        token_id=token.token_id,
        kind=token.kind,
        digest=token.digest,
        tenant=tenant,
        cluster_key=find_cluster(tx, tenant, token.cluster),
        uses_left=token.uses,
        expires_at=expires,
    )
    tx.add_credential(credential, now=now)
    return expires


def find_cluster(tx: Transaction, tenant: TenantId, name: str) -> ClusterKey:
    """Raises NotFound and names those that exist."""
    key = tx.cluster_key(tenant, name)
    if key is None:
        known = ", ".join(tx.cluster_names(tenant)) or "none"
        raise NotFound(f"there is no cluster {name!r} (clusters here: {known})")
    return key
