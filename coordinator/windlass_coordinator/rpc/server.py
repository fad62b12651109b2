"""The gRPC listener: all services on one port, behind one guard."""

from dataclasses import dataclass

import grpc

from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.rpc.agent_service import AgentService
from windlass_coordinator.rpc.cluster_service import ClusterService, NodeService
from windlass_coordinator.rpc.interceptors import CallGuard
from windlass_coordinator.rpc.job_service import JobService
from windlass_coordinator.rpc.secret_service import SecretService
from windlass_coordinator.settings_tree import HostPort
from windlass_proto.errors import Unavailable
from windlass_proto.v1 import agent_pb2_grpc, clusters_pb2_grpc, jobs_pb2_grpc, secrets_pb2_grpc

_LONGEST_MESSAGE_BYTES = 4 << 20
_LONGEST_METADATA_BYTES = 16 << 10
_SHORTEST_PING_MS = 10_000

_HANDSHAKE_MS = 10_000
_IDLE_MS = 5 * 60_000

_OPTIONS = (
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _LONGEST_METADATA_BYTES),
    # By default the library takes a quarter more, each frame of it at our cost.
    ("grpc.absolute_max_metadata_size", _LONGEST_METADATA_BYTES),
    # Whoever connects and says nothing that is HTTP/2.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    # Clients that were left open; they connect again with their next call.
    ("grpc.max_connection_idle_ms", _IDLE_MS),
    # Agents ping a quiet connection; the library's own bound of 5 minutes would call that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", _SHORTEST_PING_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # A second coordinator on this port must fail, not share it.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the listener offers."""

    guard: CallGuard
    agents: AgentService
    jobs: JobService
    clusters: ClusterService
    nodes: NodeService
    secrets: SecretService


def open_server(
    address: HostPort, services: Services, limits: OverloadLimits
) -> tuple[grpc.aio.Server, HostPort]:
    """A server that has its port, not started yet, and where it can be reached. Raises Unavailable."""
    bounds = (
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        ("grpc.server.max_pending_requests", limits.unread_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * limits.unread_calls),
        ("grpc.max_allowed_incoming_connections", limits.connections),
    )
    server = grpc.aio.server(interceptors=[services.guard], options=(*_OPTIONS, *bounds))
    agent_pb2_grpc.add_AgentServiceServicer_to_server(services.agents, server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(services.jobs, server)
    clusters_pb2_grpc.add_ClusterServiceServicer_to_server(services.clusters, server)
    clusters_pb2_grpc.add_NodeServiceServicer_to_server(services.nodes, server)
    secrets_pb2_grpc.add_SecretServiceServicer_to_server(services.secrets, server)
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise Unavailable(f"cannot listen at {address}: it is in use, or not an address here") from error
    return server, HostPort(host=address.host, port=port)
