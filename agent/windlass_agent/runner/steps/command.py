"""Turns a prepared attempt into the plan that its slot's keeper gets."""

import shutil

from windlass_agent.core.isolation import sandbox_plan
from windlass_agent.core.mount_plan import MountRefused, wrap_in_namespace
from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.isolation.mount_points import BadMountPoint, make_mount_point
from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.steps.environment import environment_of
from windlass_agent.runner.task_template import TaskTemplate
from windlass_proto.model.specs import Isolation


def command_plan(context: StepContext, template: TaskTemplate) -> CommandPlan:
    """Raises MountRefused when absolute paths cannot be had here."""
    binds = () if context.spec.container else context.mounts.binds
    is_isolated = template.isolation is not Isolation.DEV
    for bind in binds:
        try:
            make_mount_point(bind.target, is_isolated=is_isolated)
        except (BadMountPoint, OSError) as problem:
            raise MountRefused(f"the path {bind.target} cannot be used: {problem}") from problem
    argv = template.argv
    if binds and not is_isolated:
        argv = wrap_in_namespace(
            argv, binds, unshare=_program("unshare"), mount=_program("mount"), mkdir=_program("mkdir")
        )
    return CommandPlan(
        ref=context.ref,
        argv=argv,
        env=environment_of(context, template),
        work_dir=str(context.folders.work),
        output_dir=str(context.folders.root),
        timeout_s=template.timeout_s,
        kill_grace_s=template.kill_grace_s,
        memory_bytes=template.needs.memory_bytes,
        on_full_spool=template.on_full_spool,
        outlive_s=template.outlive_s,
        isolation=sandbox_plan(
            template.isolation,
            binds=[(str(bind.directory), str(bind.target)) for bind in binds],
            temporary=str(context.folders.temporary),
        ),
        pids=template.needs.pids,
        open_files=template.needs.open_files,
        cpu=template.needs.cpu,
    )


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MountRefused(f"absolute input and output paths need the program {name!r} on the node")
    return path
