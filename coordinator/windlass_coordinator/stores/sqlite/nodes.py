"""Clusters, nodes and credentials on SQLite."""

import sqlite3
from collections.abc import Collection, Mapping
from datetime import datetime

from windlass_coordinator.core.records import ClusterKey, JobKey, NodeView, Wakes
from windlass_coordinator.stores.machines import Credential
from windlass_coordinator.stores.sql.rows import node_view_of
from windlass_coordinator.stores.sql.times import from_us_or_none, to_us
from windlass_proto.model.ids import NodeId, NodeKey, TenantId
from windlass_proto.model.states import NodeState
from windlass_proto.model.status import NodeFacts

_NODE = """
SELECT n.node_key, n.node_id, n.name, n.tenant, c.name, n.cluster_key, n.state, n.state_id,
       n.boot_id, n.epoch, n.nonce, n.last_nonce, n.cpu, n.memory_bytes, n.slots, n.wish, n.reason,
       n.drain_by, n.prepare_failed_jobs, n.gpus
FROM nodes n JOIN clusters c ON c.cluster_key = n.cluster_key """


class SqliteNodes:
    """The part of a transaction that knows machines."""

    _db: sqlite3.Connection
    wakes: Wakes
    _incarnation: int

    def incarnation(self) -> int:
        return self._incarnation

    def cluster_key(self, tenant: TenantId, name: str) -> ClusterKey | None:
        row = self._db.execute(
            "SELECT cluster_key FROM clusters WHERE tenant = ? AND name = ? AND name NOT LIKE '%/%'",
            (tenant, name),
        ).fetchone()
        return None if row is None else ClusterKey(row[0])

    def cluster_names(self, tenant: TenantId) -> list[str]:
        rows = self._db.execute(
            "SELECT name FROM clusters WHERE tenant = ? AND name NOT LIKE '%/%' ORDER BY name", (tenant,)
        )
        return [row[0] for row in rows]

    def add_cluster(self, tenant: TenantId, name: str, *, description: str, now: datetime) -> ClusterKey:
        row = self._db.execute(
            "INSERT INTO clusters (tenant, name, description, created_at) VALUES (?, ?, ?, ?) "
            "RETURNING cluster_key",
            (tenant, name, description, to_us(now)),
        ).fetchone()
        return ClusterKey(row[0])

    def delete_cluster(self, cluster_key: ClusterKey) -> None:
        # Terminal tasks and gone nodes keep pointing at it, so the row stays under a name nobody can ask for.
        self._db.execute(
            "UPDATE clusters SET name = name || '/' || cluster_key WHERE cluster_key = ?", (cluster_key,)
        )
        revoked = self._db.execute(
            "UPDATE credentials SET revoked = 1 WHERE cluster_key = ? RETURNING node_key", (cluster_key,)
        )
        self.wakes.changed_nodes |= {NodeKey(row[0]) for row in revoked if row[0] is not None}

    def cluster_in_use(self, cluster_key: ClusterKey) -> str | None:
        nodes = self._db.execute(
            "SELECT count(*) FROM nodes WHERE cluster_key = ? AND state NOT IN ('GONE', 'DELETED')",
            (cluster_key,),
        ).fetchone()[0]
        tasks = self._db.execute(
            "SELECT count(*) FROM tasks WHERE cluster_key = ? "
            "AND state IN ('WAITING', 'READY', 'RUNNING', 'STOPPING')",
            (cluster_key,),
        ).fetchone()[0]
        if nodes:
            return f"{nodes} node(s)"
        return f"{tasks} task(s) that have not ended" if tasks else None

    def add_node(
        self,
        node_id: NodeId,
        facts: NodeFacts,
        *,
        tenant: TenantId,
        cluster_key: ClusterKey,
        now: datetime,
    ) -> NodeKey:
        row = self._db.execute(
            "INSERT INTO nodes (node_id, tenant, cluster_key, name, state, joined_at) "
            "VALUES (?, ?, ?, ?, 'JOINING', ?) RETURNING node_key",
            (node_id, tenant, cluster_key, facts.name, to_us(now)),
        ).fetchone()
        return NodeKey(row[0])

    def node_view(self, node_key: NodeKey) -> NodeView | None:
        row = self._db.execute(_NODE + "WHERE n.node_key = ?", (node_key,)).fetchone()
        return None if row is None else node_view_of(row)

    def find_node(self, node_id: NodeId, *, tenant: TenantId) -> NodeView | None:
        rows = self._db.execute(
            _NODE + "WHERE n.tenant = ?1 AND n.state <> 'DELETED' AND (n.node_id = ?2 OR "
            "(n.name = ?2 AND n.state <> 'GONE')) ORDER BY n.node_id <> ?2 LIMIT 2",
            (tenant, node_id),
        ).fetchall()
        views = [node_view_of(row) for row in rows]
        is_clear = len(views) == 1 or (bool(views) and views[0].node_id == node_id)
        return views[0] if is_clear else None

    def set_node_wish(
        self, node_key: NodeKey, wish: NodeState | None, *, reason: str, drain_by: datetime | None
    ) -> None:
        self.wakes.changed_nodes.add(node_key)
        self._db.execute(
            "UPDATE nodes SET wish = ?, reason = ?, drain_by = ? WHERE node_key = ?",
            (wish or "", reason, None if drain_by is None else to_us(drain_by), node_key),
        )

    def note_prepare_failures(self, node_key: NodeKey, jobs: frozenset[JobKey]) -> None:
        self._db.execute(
            "UPDATE nodes SET prepare_failed_jobs = ? WHERE node_key = ?",
            (" ".join(map(str, sorted(jobs))), node_key),
        )

    def end_session(self, node: NodeView) -> None:
        self.wakes.changed_nodes.add(node.node_key)
        self._db.execute(
            "UPDATE nodes SET epoch = ? WHERE node_key = ?",
            (node.epoch + 1, node.node_key),
        )

    def bump_heard(self, nodes: Collection[NodeKey]) -> None:
        self._db.executemany(
            "UPDATE nodes SET heard = heard + 1 WHERE node_key = ?", [(key,) for key in nodes]
        )

    def heard_counts(self) -> dict[NodeKey, int]:
        rows = self._db.execute(
            "SELECT node_key, heard FROM nodes WHERE state NOT IN ('JOINING', 'GONE', 'DELETED')"
        )
        return {NodeKey(row[0]): row[1] for row in rows}

    def open_session(
        self,
        node: NodeView,
        facts: NodeFacts,
        *,
        state_id: str,
        boot_id: str,
        epoch: int,
        nonce: str,
        last_nonce: str,
        now: datetime,
    ) -> None:
        self.wakes.changed_nodes.add(node.node_key)
        self._db.execute(
            """UPDATE nodes SET state = 'READY', state_id = ?, boot_id = ?, epoch = ?, nonce = ?,
                 last_nonce = ?, name = ?, slots = ?, cpu = ?, memory_bytes = ?, agent_version = ?, os = ?,
                 containment = ?, gpus = ?, last_seen_at = ? WHERE node_key = ?""",
            (
                state_id,
                boot_id,
                epoch,
                nonce,
                last_nonce,
                facts.name,
                facts.slots,
                facts.cpu,
                facts.memory_bytes,
                facts.agent_version,
                facts.os,
                facts.containment,
                facts.gpus,
                to_us(now),
                node.node_key,
            ),
        )

    def confirm_session(self, node_key: NodeKey) -> None:
        self._db.execute("UPDATE nodes SET last_nonce = nonce WHERE node_key = ?", (node_key,))

    def set_node_state(self, node_key: NodeKey, state: NodeState, *, now: datetime) -> None:
        self.wakes.changed_nodes.add(node_key)
        self._db.execute("UPDATE nodes SET state = ? WHERE node_key = ?", (state, node_key))
        if state is NodeState.READY:
            self.note_seen({node_key: now})

    def note_seen(self, seen: Mapping[NodeKey, datetime]) -> None:
        self._db.executemany(
            "UPDATE nodes SET last_seen_at = ? WHERE node_key = ?",
            [(to_us(when), key) for key, when in seen.items()],
        )

    def nodes_in(self, states: Collection[NodeState]) -> list[NodeKey]:
        marks = ", ".join("?" for _ in states)
        rows = self._db.execute(f"SELECT node_key FROM nodes WHERE state IN ({marks})", tuple(states))
        return [NodeKey(row[0]) for row in rows]

    def credential(self, token_id: str) -> Credential | None:
        row = self._db.execute(
            "SELECT kind, digest, tenant, cluster_key, node_key, uses_left, expires_at, revoked "
            "FROM credentials WHERE token_id = ?",
            (token_id,),
        ).fetchone()
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
        self._db.execute(
            "INSERT INTO credentials (token_id, kind, digest, tenant, cluster_key, node_key, uses_left, "
            "expires_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                credential.token_id,
                credential.kind,
                credential.digest,
                credential.tenant,
                credential.cluster_key,
                credential.node_key,
                credential.uses_left,
                None if expires is None else to_us(expires),
                to_us(now),
            ),
        )

    def use_credential(self, token_id: str) -> None:
        self._db.execute("UPDATE credentials SET uses_left = uses_left - 1 WHERE token_id = ?", (token_id,))

    def revoke_node_credentials(self, node_key: NodeKey) -> None:
        self._db.execute("UPDATE credentials SET revoked = 1 WHERE node_key = ?", (node_key,))
