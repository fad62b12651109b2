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
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, InputMapping, JobSpec, OutputMapping, ShellLine, TaskSpec
from windlass_proto.model.states import InstanceState, JobState, LogStream, TaskState
from windlass_proto.model.status import InstanceStatus, JobStatus, LogChunk, NodeStatus, TaskStatus

__all__ = [
    "Argv",
    "BlockingClient",
    "Client",
    "Conflict",
    "Denied",
    "InputMapping",
    "InstanceState",
    "InstanceStatus",
    "InvalidJob",
    "InvalidRequest",
    "JobId",
    "JobSpec",
    "JobState",
    "JobStatus",
    "LogChunk",
    "LogStream",
    "NodeStatus",
    "NotFound",
    "OutputMapping",
    "Problem",
    "Profile",
    "Resources",
    "ShellLine",
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
