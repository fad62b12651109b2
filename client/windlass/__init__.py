"""Windlass for users: submit jobs, follow them, read their output.

`Client` is for asyncio, `BlockingClient` for everything else; the values they take and give are below.
"""

from windlass.blocking import BlockingClient
from windlass.client import Client
from windlass.profile import Profile, find_profile, load_profile
from windlass_proto import __version__
from windlass_proto.errors import (
    Conflict,
    Denied,
    InvalidJob,
    InvalidRequest,
    NotFound,
    Problem,
    Unavailable,
    WindlassError,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, JobId, NodeId, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.secrets import Login, SecretKind, SecretStatus
from windlass_proto.model.specs import (
    Argv,
    Command,
    Container,
    DisconnectPolicy,
    FullSpool,
    InputMapping,
    Isolation,
    JobSpec,
    LogMapping,
    OutputMapping,
    ShellLine,
    TaskSpec,
)
from windlass_proto.model.states import (
    AttemptState,
    InstanceState,
    JobState,
    LogState,
    LogStream,
    NodeState,
    TaskState,
)
from windlass_proto.model.status import (
    AttemptStatus,
    ClusterStatus,
    InstanceCounts,
    InstanceStatus,
    JobStatus,
    LogChunk,
    NodeStatus,
    TaskStatus,
)
from windlass_proto.model.storage import StorageProfile, StorageProfiles

__all__ = [
    "DEFAULT_CLUSTER",
    "Argv",
    "AttemptState",
    "AttemptStatus",
    "BlockingClient",
    "Client",
    "ClusterName",
    "ClusterStatus",
    "Command",
    "Conflict",
    "Container",
    "Denied",
    "DisconnectPolicy",
    "FailureKind",
    "FullSpool",
    "InputMapping",
    "InstanceCounts",
    "InstanceState",
    "InstanceStatus",
    "InvalidJob",
    "InvalidRequest",
    "Isolation",
    "JobId",
    "JobSpec",
    "JobState",
    "JobStatus",
    "LogChunk",
    "LogMapping",
    "LogState",
    "LogStream",
    "Login",
    "NodeId",
    "NodeState",
    "NodeStatus",
    "NotFound",
    "OutputMapping",
    "Problem",
    "Profile",
    "Resources",
    "SecretKind",
    "SecretStatus",
    "ShellLine",
    "StorageProfile",
    "StorageProfiles",
    "TaskName",
    "TaskSpec",
    "TaskState",
    "TaskStatus",
    "Unavailable",
    "WindlassError",
    "__version__",
    "find_profile",
    "load_profile",
]
