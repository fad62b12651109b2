"""What the journal of intents remembers of a batch, so that its attempts can be run by a later agent."""

from collections.abc import Sequence

from windlass_agent.spool.intents import SharedPart
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.ids import AttemptRef, ClusterName, JobId, TaskName


def shared_part(batch: AssignmentBatch, boot_id: str) -> SharedPart:
    return {
        "boot_id": boot_id,
        "job_id": batch.job_id,
        "task_name": batch.task_name,
        "instance_count": batch.instance_count,
        "cluster": batch.cluster,
        "spec": batch.spec.decode(),
    }


def batch_of(shared: SharedPart, refs: Sequence[AttemptRef]) -> AssignmentBatch:
    """The inverse, for refs of one task."""
    return AssignmentBatch(
        task_key=refs[0].task_key,
        job_id=JobId(shared["job_id"]),
        task_name=TaskName(shared["task_name"]),
        instance_count=shared["instance_count"],
        cluster=ClusterName(shared["cluster"]),
        spec=shared["spec"].encode(),
        index=tuple(ref.index for ref in refs),
        attempt=tuple(ref.attempt for ref in refs),
        fence=tuple(ref.fence for ref in refs),
    )
