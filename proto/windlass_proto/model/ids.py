"""Identities: what names a thing, and nothing else."""

from dataclasses import dataclass
from typing import NewType

JobId = NewType("JobId", str)
"""`job-` and 32 lower-case hex digits (128 random bits)."""

TaskName = NewType("TaskName", str)
"""The user's name of a task, unique in its job."""

TaskKey = NewType("TaskKey", int)
"""The store's own number of a task; names it in the agent protocol and in paths."""

NodeId = NewType("NodeId", str)
"""`node-` and 32 lower-case hex digits."""

NodeKey = NewType("NodeKey", int)
"""The store's own number of a node."""

TenantId = NewType("TenantId", str)

ClusterName = NewType("ClusterName", str)

Fence = NewType("Fence", int)
"""Grows with every claim and every revoke of an instance: `(incarnation << 40) + n`."""

DEFAULT_CLUSTER = ClusterName("default")
DEFAULT_TENANT = TenantId("default")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AttemptRef:
    """One try of one instance, as both sides of the agent protocol name it."""

    task_key: TaskKey
    index: int
    attempt: int
    fence: Fence
