"""How jobs end when nothing goes wrong: worked out from their scripts alone (promise P3)."""

from dataclasses import dataclass

from tests.simulation.scripts import read_script
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState, TaskState


@dataclass(frozen=True, slots=True)
class Expected:
    job: JobState
    tasks: dict[str, TaskState] | None
    """None where the end of a task depends on who was first."""


def instance_succeeds(task: TaskSpec, index: int) -> bool:
    """Whether it ends SUCCEEDED, however often it is lost on the way."""
    assert isinstance(task.command, Argv)
    script = read_script(task.command.args)
    if script.upload_fails:
        return False
    if index not in script.bad:
        return True
    if not script.until:
        return False
    spends_user_budget = not script.prepare_fails or FailureKind(script.prepare_fails).spends_user_budget
    return not spends_user_budget or task.max_retries >= script.until


def expected_end(spec: JobSpec) -> Expected:
    tasks: dict[str, TaskState] = {}
    for task in spec.tasks:
        if any(tasks[parent] is not TaskState.SUCCEEDED for parent in task.after):
            tasks[task.name] = TaskState.SKIPPED
        elif all(instance_succeeds(task, index) for index in range(task.instances)):
            tasks[task.name] = TaskState.SUCCEEDED
        else:
            tasks[task.name] = TaskState.FAILED
    if TaskState.FAILED not in tasks.values():
        return Expected(JobState.SUCCEEDED, tasks)
    return Expected(JobState.FAILED, None if spec.fail_on_instance_failure else tasks)
