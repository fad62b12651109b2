"""Gets the task's image, and turns its command into one that runs in a container of it."""

import os
import resource
from functools import partial
from pathlib import Path

from windlass_agent.containers.base import (
    BadImage,
    ContainerLimits,
    ContainerMount,
    EngineUnavailable,
    Image,
)
from windlass_agent.containers.images import ImageRequest
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.containers.run_file import (
    ContainerRun,
    command_of,
    passes_mounts_on,
    removal_of,
    write_run,
)
from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_agent.runner.task_template import TaskTemplate
from windlass_proto.model.environment import CONTAINER_WORK_DIR, environment_inside
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.secrets import Login
from windlass_proto.model.specs import Container


class ContainerStep:
    """What `StepRunner` does for tasks in containers."""

    def __init__(self, containers: NodeContainers, *, pids_max: int, group: int = 0) -> None:
        """`group`: see `NodeIsolation.container_group`."""
        self._containers, self._pids_max, self._group = containers, pids_max, group

    async def get_image(self, context: StepContext, *, limit_s: float) -> StepFailure | None:
        """Nothing to do for a task that runs on the node itself."""
        wanted = context.spec.container
        if wanted is None:
            return None
        return await in_thread(partial(self._get_image, context, wanted, limit_s))

    def plan(
        self, context: StepContext, template: TaskTemplate, plan: CommandPlan
    ) -> CommandPlan | StepFailure:
        """`plan` is the command's on the node itself."""
        image = context.image
        if image is None:
            raise RuntimeError(f"attempt {context.ref} has no image")
        run = ContainerRun(
            root=context.folders.root,
            name=self._containers.name_of(context.ref),
            label=self._containers.label,
            image=image,
            argv=template.argv,
            env=environment_inside(plan.env, context.spec.env),
            network="host",
            mounts=_mounts(context),
            limits=self._limits(context),
            gpus=context.gpus,
            group=self._group,
        )
        try:
            write_run(self._containers.engine(), run)
        except BadImage as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))
        except (EngineUnavailable, OSError) as problem:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"container: {problem}")
        return _in_container(plan, context.folders.root)

    def _get_image(self, context: StepContext, wanted: Container, limit_s: float) -> StepFailure | None:
        def get() -> None:
            context.image = self._obtain(context, wanted, limit_s)

        try:
            return transfer(get, unavailable=FailureKind.INFRA_PREPARE)
        except BadImage as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=f"container: {problem}")
        except (EngineUnavailable, OSError) as problem:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"container: {problem}")

    def _obtain(self, context: StepContext, wanted: Container, limit_s: float) -> Image:
        request = ImageRequest(
            container=wanted,
            login=_login(context, wanted.login),
            storage_for=context.storages.for_scheme,
            timeout_s=limit_s,
            cancelled=context.cancelled,
        )
        return self._containers.obtain(request)

    def _limits(self, context: StepContext) -> ContainerLimits:
        needs = context.spec.resources
        return ContainerLimits(
            cpu=min(needs.cpu, float(os.cpu_count() or 1)),  # More than there are is an error to the engines.
            memory_bytes=needs.memory_bytes,
            pids=needs.pids or self._pids_max,
            open_files=needs.open_files or resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        )


def _login(context: StepContext, name: str) -> Login | None:
    if not name:
        return None
    if name not in context.logins:
        raise BadImage(f"the stored login {name!r} was not fetched for this attempt")
    return context.logins[name]


def _in_container(plan: CommandPlan, root: Path) -> CommandPlan:
    """What the slot runs is ours: nothing of the task is in its environment, nor are its limits on it."""
    return CommandPlan(
        ref=plan.ref,
        argv=command_of(root),
        env={},
        work_dir=str(root),
        output_dir=plan.output_dir,
        timeout_s=plan.timeout_s,
        kill_grace_s=plan.kill_grace_s,
        memory_bytes=0,
        on_full_spool=plan.on_full_spool,
        outlive_s=plan.outlive_s,
        undo=removal_of(root),
    )


def _mounts(context: StepContext) -> tuple[ContainerMount, ...]:
    """The work directory with all that is mapped below it, its own /tmp, and what has absolute paths."""
    folders = context.folders
    places = [(folders.work, CONTAINER_WORK_DIR), (folders.temporary, "/tmp")]
    places += [(bind.directory, str(bind.target)) for bind in context.mounts.binds]
    mountinfo = Path("/proc/self/mountinfo").read_text()
    return tuple(
        ContainerMount(source=str(source), target=target, is_slave=passes_mounts_on(mountinfo, str(source)))
        for source, target in places
    )
