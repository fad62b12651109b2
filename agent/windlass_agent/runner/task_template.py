"""What all attempts of a task share, worked out once per task.

The path of a short command through the agent is only as quick as what is left to do per attempt, so
everything that does not depend on the attempt is here.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from windlass_agent.core.isolation import HOME, USER, NodeIsolation, sandbox_plan
from windlass_agent.core.mount_plan import with_node_mounts
from windlass_agent.core.prefetch import updated_run_time
from windlass_agent.core.run_plan import CommandPlan
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import NodeVariables, attempt_environment, task_environment
from windlass_proto.model.ids import AttemptRef, JobId, TaskKey
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    Command,
    FullSpool,
    InputMapping,
    Isolation,
    ShellLine,
    TaskSpec,
    task_from_json,
)

_REMEMBERED = 1024
"""Templates kept after their last attempt; a task that comes again finds its run time."""


@dataclass(slots=True, kw_only=True)
class TaskTemplate:
    task_key: TaskKey
    job_id: JobId
    spec: TaskSpec
    argv: tuple[str, ...]
    needs: Resources
    timeout_s: float | None
    kill_grace_s: float
    share: str
    """What a keeper may recognise further attempts of the task by."""
    on_full_spool: str
    """What becomes of output that the node has no room for."""
    outlive_s: float
    """How long its commands go on after the node's lease has ended."""
    isolation: Isolation
    """Of its commands; containers have their own."""
    refusal: str
    """Why this node cannot give that; "" = it can."""
    is_plain: bool
    """Nothing to prepare and nothing to upload: the keeper gets it at once."""
    run_time_s: float | None = None
    """Moving average; None until one has ended."""
    _shared_env: Mapping[str, str]

    def environment(self, ref: AttemptRef, gpus: Sequence[str] = ()) -> dict[str, str]:
        return attempt_environment(self._shared_env, self.spec.env, ref, gpus)

    def plain_plan(self, ref: AttemptRef, output_dir: str, gpus: Sequence[str] = ()) -> CommandPlan:
        """For a keeper, when there is nothing to prepare: it runs in the slot's own empty directory."""
        return CommandPlan(
            ref=ref,
            argv=self.argv,
            env=self.environment(ref, gpus),
            work_dir=None,
            output_dir=output_dir,
            timeout_s=self.timeout_s,
            kill_grace_s=self.kill_grace_s,
            memory_bytes=self.needs.memory_bytes,
            on_full_spool=self.on_full_spool,
            outlive_s=self.outlive_s,
            isolation=sandbox_plan(self.isolation),
            pids=self.needs.pids,
            open_files=self.needs.open_files,
            cpu=self.needs.cpu,
        )

    def observe(self, run_time_s: float) -> None:
        self.run_time_s = updated_run_time(self.run_time_s, run_time_s)


class TaskTemplates:
    """The templates of the tasks seen lately."""

    def __init__(
        self,
        node: NodeVariables,
        *,
        kill_grace: timedelta,
        mounts: tuple[InputMapping, ...] = (),
        isolation: NodeIsolation | None = None,
    ) -> None:
        """`mounts`: what the node shows to every task without inputs of its own."""
        self._node, self._mounts = node, mounts
        self._isolation = isolation or NodeIsolation()
        self._kill_grace_s = kill_grace.total_seconds()
        self._by_key: OrderedDict[TaskKey, TaskTemplate] = OrderedDict()

    def of(self, batch: AssignmentBatch) -> TaskTemplate:
        """Raises ValueError when the specification cannot be read here, as one of a newer coordinator."""
        template = self._by_key.get(batch.task_key)
        if template is None:
            template = self._by_key[batch.task_key] = self._make(batch)
            if len(self._by_key) > _REMEMBERED:
                self._by_key.popitem(last=False)
        return template

    def _make(self, batch: AssignmentBatch) -> TaskTemplate:
        spec = with_node_mounts(task_from_json(batch.spec), self._mounts)
        profile = Isolation.DEV if spec.container else self._isolation.of(spec.isolation)
        lacking = self._isolation.lacks.get(profile)
        refusal = f"the node cannot give {profile} isolation: {lacking}" if lacking else ""
        node = self._node
        if profile is not Isolation.DEV:
            node = replace(node, home=HOME, user=USER)
        return TaskTemplate(
            task_key=batch.task_key,
            job_id=batch.job_id,
            spec=spec,
            argv=_argv(spec.command),
            needs=spec.resources,
            timeout_s=None if spec.timeout is None else spec.timeout.total_seconds(),
            kill_grace_s=self._kill_grace_s,
            share=str(batch.task_key),
            on_full_spool=_on_full_spool(spec),
            outlive_s=spec.outlives_lease_for.total_seconds(),
            isolation=profile,
            refusal=refusal,
            is_plain=not (refusal or _needs_steps(spec)),
            _shared_env=task_environment(node, batch, spec.env),
        )


def _needs_steps(spec: TaskSpec) -> bool:
    results = spec.outputs or spec.logs or spec.stdout or spec.stderr
    return bool(spec.container or spec.package or spec.inputs or results)


def _on_full_spool(spec: TaskSpec) -> str:
    """What is uploaded at the end stays until then: waiting for room would be waiting for ever."""
    keeps_all = bool(spec.stdout or spec.stderr)
    return FullSpool.DROP if keeps_all else spec.on_full_spool


def _argv(command: Command) -> tuple[str, ...]:
    match command:
        case Argv(args=args):
            return args
        case ShellLine(line=line):
            return ("/bin/sh", "-c", line)
