"""Clusters and nodes on PostgreSQL."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from windlass_coordinator.core.records import ClusterKey, JobKey, NodeView, Wakes
from windlass_coordinator.stores.postgres.arrays import ints, texts
from windlass_coordinator.stores.postgres.locks import PostgresLocks, RunAgain
from windlass_coordinator.stores.sql.rows import node_view_of
from windlass_coordinator.stores.sql.times import to_us
from windlass_proto.model.ids import NodeId, NodeKey, TenantId
from windlass_proto.model.states import NodeState
from windlass_proto.model.status import NodeFacts

_NODE = """
SELECT n.node_key, n.node_id, n.name, n.tenant, c.name, n.cluster_key, n.state, n.state_id,
       n.boot_id, n.epoch, n.nonce, n.last_nonce, n.cpu, n.memory_bytes, n.slots, n.wish, n.reason,
       n.drain_by, n.prepare_failed_jobs, n.gpus
FROM nodes n JOIN clusters c ON c.cluster_key = n.cluster_key """

_FIND = f"""{_NODE}
WHERE n.tenant = $1 AND n.state <> 'DELETED' AND (n.node_id = $2 OR (n.name = $2 AND n.state <> 'GONE'))
ORDER BY n.node_id <> $2 LIMIT 2"""

_OPEN_SESSION = """
UPDATE nodes SET state = 'READY', state_id = $2, boot_id = $3, epoch = $4, nonce = $5, last_nonce = $6,
  name = $7, slots = $8, cpu = $9, memory_bytes = $10, agent_version = $11, os = $12, containment = $13,
  gpus = $14, last_seen_at = $15 WHERE node_key = $1"""


class PostgresNodes(PostgresLocks):
    """The part of a transaction that knows machines."""

    wakes: Wakes

    def incarnation(self) -> int:
        return self._incarnation

    def cluster_key(self, tenant: TenantId, name: str) -> ClusterKey | None:
        # Held, so that nobody deletes it under a job or a node that is on its way in.
        rows = self._lock(
            "SELECT cluster_key FROM clusters WHERE tenant = $1 AND name = $2 AND name NOT LIKE '%/%' "
            "FOR KEY SHARE",
            tenant,
            name,
        )
        return ClusterKey(rows[0][0]) if rows else None

    def cluster_names(self, tenant: TenantId) -> list[str]:
        rows = self._rows(
            "SELECT name FROM clusters WHERE tenant = $1 AND name NOT LIKE '%/%' ORDER BY name", tenant
        )
        return [row[0] for row in rows]

    def add_cluster(self, tenant: TenantId, name: str, *, description: str, now: datetime) -> ClusterKey:
        ((key,),) = self._change_returning(
            "INSERT INTO clusters (tenant, name, description, created_at) VALUES ($1, $2, $3, $4) "
            "RETURNING cluster_key",
            tenant,
            name,
            description,
            to_us(now),
        )
        return ClusterKey(key)

    def delete_cluster(self, cluster_key: ClusterKey) -> None:
        # Terminal tasks and gone nodes keep pointing at it, so the row stays under a name nobody can ask for.
        self._change(
            "UPDATE clusters SET name = name || '/' || cluster_key WHERE cluster_key = $1", cluster_key
        )
        revoked = self._change_returning(
            "UPDATE credentials SET revoked = 1 WHERE cluster_key = $1 RETURNING node_key", cluster_key
        )
        self.wakes.changed_nodes |= {NodeKey(row[0]) for row in revoked if row[0] is not None}

    def cluster_in_use(self, cluster_key: ClusterKey) -> str | None:
        # What is on its way in holds the cluster: it is counted after it has arrived.
        self._lock("SELECT 1 FROM clusters WHERE cluster_key = $1 FOR UPDATE", cluster_key)
        nodes = self._row(
            "SELECT count(*) FROM nodes WHERE cluster_key = $1 AND state NOT IN ('GONE', 'DELETED')",
            cluster_key,
        )[0]
        if nodes:
            return f"{nodes} node(s)"
        tasks = self._row(
            "SELECT count(*) FROM tasks WHERE cluster_key = $1 "
            "AND state IN ('WAITING', 'READY', 'RUNNING', 'STOPPING')",
            cluster_key,
        )[0]
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
        ((key,),) = self._change_returning(
            "INSERT INTO nodes (node_id, tenant, cluster_key, name, state, joined_at) "
            "VALUES ($1, $2, $3, $4, 'JOINING', $5) RETURNING node_key",
            node_id,
            tenant,
            cluster_key,
            facts.name,
            to_us(now),
        )
        return NodeKey(key)

    def node_view(self, node_key: NodeKey) -> NodeView | None:
        row = self._row(_NODE + "WHERE n.node_key = $1", node_key)
        return None if row is None else self._read_node(row)

    def find_node(self, node_id: NodeId, *, tenant: TenantId) -> NodeView | None:
        views = [self._read_node(row) for row in self._rows(_FIND, tenant, node_id)]
        is_clear = len(views) == 1 or (bool(views) and views[0].node_id == node_id)
        return views[0] if is_clear else None

    # A row is untyped: the driver knows no column types.
    def _read_node(self, row: Any) -> NodeView:
        view = node_view_of(row)
        # What verbs decide on; as `_LOCK_NODE` finds it.
        self._nodes_read[view.node_key] = (row[6], row[9], row[10], row[15], row[17], row[18])
        return view

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
        self._lock_node(node.node_key)
        self._change(
            _OPEN_SESSION,
            node.node_key,
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
        )

    def confirm_session(self, node_key: NodeKey) -> None:
        # Only the nonce that the verb has seen is confirmed: there may be a newer one by now.
        seen = self._nodes_read.get(node_key)
        changed = self._change_counted(
            "UPDATE nodes SET last_nonce = nonce WHERE node_key = $1 AND epoch = $2",
            node_key,
            None if seen is None else seen[1],
        )
        if not changed:
            raise RunAgain

    def end_session(self, node: NodeView) -> None:
        self.wakes.changed_nodes.add(node.node_key)
        self._lock_node(node.node_key)
        self._change(
            "UPDATE nodes SET epoch = $1 WHERE node_key = $2",
            node.epoch + 1,
            node.node_key,
        )

    def set_node_state(self, node_key: NodeKey, state: NodeState, *, now: datetime) -> None:
        self.wakes.changed_nodes.add(node_key)
        self._lock_node(node_key)
        self._change("UPDATE nodes SET state = $1 WHERE node_key = $2", state, node_key)
        if state is NodeState.READY:
            self.note_seen({node_key: now})

    def set_node_wish(
        self, node_key: NodeKey, wish: NodeState | None, *, reason: str, drain_by: datetime | None
    ) -> None:
        self.wakes.changed_nodes.add(node_key)
        self._lock_node(node_key)
        self._change(
            "UPDATE nodes SET wish = $1, reason = $2, drain_by = $3 WHERE node_key = $4",
            wish or "",
            reason,
            None if drain_by is None else to_us(drain_by),
            node_key,
        )

    def note_prepare_failures(self, node_key: NodeKey, jobs: frozenset[JobKey]) -> None:
        self._lock_node(node_key)
        self._change(
            "UPDATE nodes SET prepare_failed_jobs = $1 WHERE node_key = $2",
            " ".join(map(str, sorted(jobs))),
            node_key,
        )

    def bump_heard(self, nodes: Collection[NodeKey]) -> None:
        self._change(
            """UPDATE nodes SET heard = heard + 1 FROM (
                 SELECT node_key AS key FROM nodes WHERE node_key = ANY($1::bigint[])
                 ORDER BY node_key FOR NO KEY UPDATE) asked WHERE node_key = asked.key""",
            ints(nodes),
        )

    def heard_counts(self) -> dict[NodeKey, int]:
        rows = self._rows(
            "SELECT node_key, heard FROM nodes WHERE state NOT IN ('JOINING', 'GONE', 'DELETED')"
        )
        return {NodeKey(row[0]): row[1] for row in rows}

    def note_seen(self, seen: Mapping[NodeKey, datetime]) -> None:
        keys = sorted(seen)
        self._change(
            """UPDATE nodes SET last_seen_at = asked.at FROM (
                 SELECT n.node_key AS key, r.at FROM unnest($1::bigint[], $2::bigint[]) r(key, at)
                 JOIN nodes n ON n.node_key = r.key ORDER BY n.node_key FOR NO KEY UPDATE OF n) asked
               WHERE node_key = asked.key""",
            ints(keys),
            ints(to_us(seen[key]) for key in keys),
        )

    def nodes_in(self, states: Collection[NodeState]) -> list[NodeKey]:
        rows = self._rows(
            "SELECT node_key FROM nodes WHERE state = ANY($1::text[]) ORDER BY node_key", texts(states)
        )
        return [NodeKey(row[0]) for row in rows]
