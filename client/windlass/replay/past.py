"""Which attempt is meant, and what it was."""

from dataclasses import dataclass

from windlass.client import Client
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import TaskSpec
from windlass_proto.model.status import AttemptStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    job_id: JobId
    spec: TaskSpec
    index: int
    status: AttemptStatus

    @property
    def name(self) -> str:
        return f"{self.spec.name}/{self.index} of {self.job_id}, attempt {self.status.attempt}"

    @property
    def outcome(self) -> str:
        """How it ended, in a few words."""
        status = self.status
        if status.exit_signal is not None:
            return f"{status.state}, ended by signal {status.exit_signal}"
        if status.exit_code is not None:
            return f"{status.state}, exit code {status.exit_code}"
        return str(status.state)


async def find_past_attempt(
    client: Client, job_id: JobId, *, task: str, index: int, attempt: int
) -> PastAttempt:
    """`task` "" = the only one; `attempt` 0 = the newest. Raises NotFound or InvalidRequest."""
    job = await client.get_spec(job_id)
    by_name = {one.name: one for one in job.tasks}
    if not task and len(by_name) > 1:
        raise InvalidRequest(f"{job_id} has several tasks: say which, as in JOB/{job.tasks[0].name}/{index}")
    spec = by_name.get(TaskName(task)) if task else job.tasks[0]
    if spec is None:
        raise NotFound(f"{job_id} has no task {task!r}; it has {', '.join(by_name)}")
    if index >= spec.instances:
        raise NotFound(f"{spec.name} has no instance {index}; its last one is {spec.instances - 1}")
    found = client.instances(job_id, spec.name, index=index, all_attempts=True)
    attempts = [one async for instance in found for one in instance.attempts]
    chosen = [one for one in attempts if attempt in (0, one.attempt)]
    if not chosen:
        what = f"attempt {attempt}" if attempt else "attempt"
        raise NotFound(f"{spec.name}/{index} of {job_id} has had no {what} yet")
    return PastAttempt(job_id=job_id, spec=spec, index=index, status=chosen[-1])
