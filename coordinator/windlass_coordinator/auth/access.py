"""Which kind of caller each method is for. A method that is not named here is refused."""

from enum import StrEnum
from typing import assert_never

from windlass_coordinator.auth.identity import AdminIdentity, AgentIdentity, Identity, UserIdentity


class Access(StrEnum):
    """Who may call a method."""

    OPEN = "open"
    """Anybody; the method itself asks for what it needs."""
    NODE = "node"
    """An agent, for what its node holds."""
    USER = "user"
    """A tenant's user, for what is the tenant's, and an admin."""
    ADMIN = "admin"
    """An admin: it touches machines that tenants share."""


_JOBS = "/windlass.v1.JobService/"
_AGENTS = "/windlass.v1.AgentService/"
_CLUSTERS = "/windlass.v1.ClusterService/"
_NODES = "/windlass.v1.NodeService/"
_SECRETS = "/windlass.v1.SecretService/"
_HEALTH = "/grpc.health.v1.Health/"

METHODS: dict[str, Access] = {
    _HEALTH + "Check": Access.OPEN,
    _HEALTH + "List": Access.OPEN,
    _HEALTH + "Watch": Access.OPEN,
    _AGENTS + "Join": Access.OPEN,
    _AGENTS + "OpenSession": Access.NODE,
    _AGENTS + "Poll": Access.NODE,
    _AGENTS + "Report": Access.NODE,
    _AGENTS + "Heartbeat": Access.NODE,
    _AGENTS + "AppendLog": Access.NODE,
    _AGENTS + "Release": Access.NODE,
    _AGENTS + "CommitOutputs": Access.NODE,
    _AGENTS + "FetchSecrets": Access.NODE,
    _AGENTS + "Leave": Access.NODE,
    _JOBS + "SubmitJob": Access.USER,
    _JOBS + "GetJob": Access.USER,
    _JOBS + "GetJobSpec": Access.USER,
    _JOBS + "ListJobs": Access.USER,
    _JOBS + "ListInstances": Access.USER,
    _JOBS + "StopJob": Access.USER,
    _JOBS + "RestartJob": Access.USER,
    _JOBS + "DeleteJob": Access.USER,
    _JOBS + "UpdatePriority": Access.USER,
    _JOBS + "WatchJob": Access.USER,
    _JOBS + "ReadLog": Access.USER,
    _CLUSTERS + "CreateCluster": Access.ADMIN,
    _CLUSTERS + "ListClusters": Access.USER,
    _CLUSTERS + "DeleteCluster": Access.ADMIN,
    _CLUSTERS + "CreateJoinToken": Access.ADMIN,
    _NODES + "ListNodes": Access.USER,
    _NODES + "GetNode": Access.USER,
    _NODES + "DrainNode": Access.USER,
    _NODES + "ResumeNode": Access.USER,
    _SECRETS + "PutSecret": Access.USER,
    _SECRETS + "ListSecrets": Access.USER,
    _SECRETS + "DeleteSecret": Access.USER,
}


def is_allowed(identity: Identity, access: Access) -> bool:
    """Whether a caller is of the kind that a method is for."""
    match access:
        case Access.OPEN:
            return True
        case Access.NODE:
            return isinstance(identity, AgentIdentity)
        case Access.USER:
            return isinstance(identity, UserIdentity | AdminIdentity)
        case Access.ADMIN:
            return isinstance(identity, AdminIdentity)
        case _:
            assert_never(access)
