"""What users and operators call about clusters and nodes."""

import secrets
from datetime import UTC, datetime, timedelta

from windlass_coordinator.auth.tokens import RANDOM_BYTES, TokenKind, new_token
from windlass_coordinator.engine import clusters, nodes
from windlass_coordinator.rpc.interceptors import Context, current_caller
from windlass_coordinator.stores.base import Store
from windlass_proto import convert
from windlass_proto.checks import SpecLimits
from windlass_proto.checks.words import Findings, check_between, check_name, check_text
from windlass_proto.errors import NotFound
from windlass_proto.model.ids import DEFAULT_CLUSTER, NodeId, TenantId
from windlass_proto.v1 import clusters_pb2 as wire
from windlass_proto.v1 import clusters_pb2_grpc

# Long enough to boot a machine, short enough not to be found later.
_TOKEN_LIFE = timedelta(minutes=15)

_LONGEST_DRAIN_S = timedelta(days=365).total_seconds()


class ClusterService(clusters_pb2_grpc.ClusterServiceServicer):
    """Implements `windlass.v1.ClusterService`."""

    def __init__(self, store: Store, limits: SpecLimits) -> None:
        self._store = store
        self._limits = limits

    async def CreateCluster(self, request: wire.CreateClusterRequest, context: Context) -> wire.ClusterStatus:
        tenant = current_caller().tenant
        findings = Findings()
        check_name(findings, "name", request.name, longest=self._limits.name_length)
        check_text(findings, "description", request.description, longest_bytes=self._limits.description_bytes)
        findings.raise_if_any()
        await self._store.run(
            lambda tx: clusters.create_cluster(
                tx, tenant, request.name, description=request.description, now=_now()
            )
        )
        found = await self._store.read(lambda queries: queries.list_clusters(tenant))
        return next(convert.cluster_status_to_wire(c) for c in found if c.name == request.name)

    async def ListClusters(
        self, request: wire.ListClustersRequest, context: Context
    ) -> wire.ListClustersReply:
        tenant = current_caller().tenant
        found = await self._store.read(lambda queries: queries.list_clusters(tenant))
        return wire.ListClustersReply(clusters=[convert.cluster_status_to_wire(c) for c in found])

    async def DeleteCluster(
        self, request: wire.DeleteClusterRequest, context: Context
    ) -> wire.DeleteClusterReply:
        tenant = current_caller().tenant
        await self._store.run(lambda tx: clusters.delete_cluster(tx, tenant, request.name))
        return wire.DeleteClusterReply()

    async def CreateJoinToken(
        self, request: wire.CreateJoinTokenRequest, context: Context
    ) -> wire.CreateJoinTokenReply:
        tenant = current_caller().tenant
        token = new_token(TokenKind.JOIN, randomness=secrets.token_bytes(RANDOM_BYTES))
        valid_for = (
            convert.duration_from_wire(request.valid_for) if request.HasField("valid_for") else _TOKEN_LIFE
        )
        new = clusters.NewJoinToken(
            kind=token.kind.value,
            token_id=token.token_id,
            digest=token.digest,
            cluster=request.cluster or DEFAULT_CLUSTER,
            uses=request.uses or 1,
            valid_for=valid_for,
        )
        expires = await self._store.run(lambda tx: clusters.create_join_token(tx, tenant, new, now=_now()))
        return wire.CreateJoinTokenReply(token=token.text, expires_at=convert.timestamp_to_wire(expires))


class NodeService(clusters_pb2_grpc.NodeServiceServicer):
    """Implements `windlass.v1.NodeService`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListNodes(self, request: wire.ListNodesRequest, context: Context) -> wire.ListNodesReply:
        tenant = current_caller().tenant
        found = await self._store.read(
            lambda queries: queries.list_nodes(
                tenant, cluster=request.cluster, include_gone=request.include_gone, node_id=""
            )
        )
        return wire.ListNodesReply(nodes=[convert.node_status_to_wire(node) for node in found])

    async def GetNode(self, request: wire.GetNodeRequest, context: Context) -> wire.NodeStatus:
        tenant = current_caller().tenant
        node_id = NodeId(request.node_id)
        view = await self._store.run(lambda tx: nodes.find_node(tx, tenant, node_id))
        return await self._status(tenant, view.node_id)

    async def DrainNode(self, request: wire.DrainNodeRequest, context: Context) -> wire.NodeStatus:
        tenant, node_id = current_caller().tenant, NodeId(request.node_id)
        within = convert.duration_from_wire(request.within) if request.HasField("within") else None
        if within is not None:
            findings = Findings()
            check_between(findings, "within", within.total_seconds(), low=0, high=_LONGEST_DRAIN_S)
            findings.raise_if_any()
        found = await self._store.run(lambda tx: nodes.drain(tx, tenant, node_id, within=within, now=_now()))
        return await self._status(tenant, found)

    async def ResumeNode(self, request: wire.ResumeNodeRequest, context: Context) -> wire.NodeStatus:
        tenant, node_id = current_caller().tenant, NodeId(request.node_id)
        found = await self._store.run(lambda tx: nodes.resume(tx, tenant, node_id, now=_now()))
        return await self._status(tenant, found)

    async def _status(self, tenant: TenantId, node_id: NodeId) -> wire.NodeStatus:
        found = await self._store.read(
            lambda queries: queries.list_nodes(tenant, cluster="", include_gone=True, node_id=node_id)
        )
        if not found:
            raise NotFound(f"there is no node {node_id}")
        return convert.node_status_to_wire(found[0])


def _now() -> datetime:
    return datetime.now(UTC)
