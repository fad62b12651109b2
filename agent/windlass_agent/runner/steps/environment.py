"""The environment of a command that has directories of its own."""

from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.task_template import TaskTemplate


def environment_of(context: StepContext, template: TaskTemplate) -> dict[str, str]:
    """As of any other attempt, and where its own directories are."""
    env = template.environment(context.ref, context.gpus)
    env["WINDLASS_WORK_DIR"] = str(context.folders.work)
    if "TMPDIR" not in context.spec.env:
        env["TMPDIR"] = str(context.folders.temporary)
    if "PWD" not in context.spec.env:
        env["PWD"] = str(context.folders.work)
    return env
