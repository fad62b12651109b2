"""Turns a prepared attempt into the plan that its slot's keeper gets."""

import shutil
from pathlib import Path

from windlass_agent.core.mount_plan import MountRefused, wrap_in_namespace
from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.steps.environment import environment_of
from windlass_agent.runner.task_template import TaskTemplate


def command_plan(context: StepContext, template: TaskTemplate, *, output_dir: Path) -> CommandPlan:
    """Raises MountRefused when the machine lacks what absolute paths need."""
    argv = template.argv
    if context.mounts.binds:
        argv = wrap_in_namespace(
            argv,
            context.mounts.binds,
            unshare=_program("unshare"),
            mount=_program("mount"),
            mkdir=_program("mkdir"),
        )
    return CommandPlan(
        ref=context.ref,
        argv=argv,
        env=environment_of(context, template),
        work_dir=str(context.folders.work),
        output_dir=str(output_dir),
        timeout_s=template.timeout_s,
        kill_grace_s=template.kill_grace_s,
        memory_bytes=template.needs.memory_bytes,
        on_full_spool=template.on_full_spool,
        outlive_s=template.outlive_s,
    )


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MountRefused(f"absolute input and output paths need the program {name!r} on the node")
    return path
