"""What users look at in a store; a part of `base.Store`."""

from collections.abc import Collection
from typing import Protocol

from windlass_coordinator.core.records import WaitingTask
from windlass_proto.model.ids import JobId, TenantId
from windlass_proto.model.states import JobState
from windlass_proto.model.status import ClusterStatus, InstanceStatus, JobStatus, NodeStatus


class Queries(Protocol):
    """What users look at; read from a snapshot, never in a writer's way."""

    def job_status(self, job_id: JobId, *, tenant: TenantId) -> JobStatus | None: ...

    def waiting_tasks(self, job_id: JobId, *, tenant: TenantId) -> list[WaitingTask]: ...

    def list_jobs(
        self,
        tenant: TenantId,
        *,
        states: Collection[JobState],
        name_contains: str,
        limit: int,
        before: int | None,
    ) -> tuple[list[JobStatus], int | None]:
        """Newest first, and what to give as `before` for the next ones."""

    def list_instances(
        self,
        job_id: JobId,
        *,
        tenant: TenantId,
        task: str,
        index: int | None,
        limit: int,
        after: tuple[int, int] | None,
        all_attempts: bool,
    ) -> tuple[list[InstanceStatus], tuple[int, int] | None] | None:
        """By task and index; None = there is no such job (or task)."""

    def list_clusters(self, tenant: TenantId) -> list[ClusterStatus]: ...

    def list_nodes(
        self, tenant: TenantId, *, cluster: str, include_gone: bool, node_id: str
    ) -> list[NodeStatus]: ...
