"""Credentials on PostgreSQL."""

from datetime import datetime

from windlass_coordinator.stores.machines import Credential
from windlass_coordinator.stores.postgres.locks import PostgresLocks, RunAgain
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.ids import NodeKey


class PostgresCredentials(PostgresLocks):
    """The part of a transaction that knows who may call."""

    def credential(self, token_id: str) -> Credential | None:
        row = self._row(
            "SELECT kind, digest, tenant, cluster_key, node_key, uses_left, expires_at, revoked "
            "FROM credentials WHERE token_id = $1",
            token_id,
        )
        if row is None:
            return None
        return Credential(
            token_id=token_id,
            kind=row[0],
            digest=row[1],
            tenant=row[2],
            cluster_key=row[3],
            node_key=row[4],
            uses_left=row[5],
            expires_at=from_us_or_none(row[6]),
            revoked=bool(row[7]),
        )

    def add_credential(self, credential: Credential, *, now: datetime) -> None:
        expires = credential.expires_at
        self._change(
            "INSERT INTO credentials (token_id, kind, digest, tenant, cluster_key, node_key, uses_left, "
            "expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            credential.token_id,
            credential.kind,
            credential.digest,
            credential.tenant,
            credential.cluster_key,
            credential.node_key,
            credential.uses_left,
            None if expires is None else to_us(expires),
            to_us(now),
        )

    def use_credential(self, token_id: str) -> None:
        used = self._change_counted(
            "UPDATE credentials SET uses_left = uses_left - 1 "
            "WHERE token_id = $1 AND uses_left > 0 AND revoked = 0",
            token_id,
        )
        if not used:
            # Its last use was taken, or it was revoked, since the verb looked.
            raise RunAgain

    def revoke_node_credentials(self, node_key: NodeKey) -> None:
        self._change("UPDATE credentials SET revoked = 1 WHERE node_key = $1", node_key)
