"""A job's specification <-> its messages.

What a message leaves out gets the model's default. Wrong values pass unchanged, so that the checks can name
each of them; a command that is not given becomes an empty argument list for the same reason.
"""

from datetime import timedelta
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from windlass_proto.convert import enums
from windlass_proto.convert.times import duration_from_wire, duration_to_wire
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    Command,
    Container,
    DisconnectPolicy,
    FullSpool,
    InputMapping,
    JobSpec,
    LogMapping,
    OutputMapping,
    ShellLine,
    TaskSpec,
)
from windlass_proto.v1 import specs_pb2 as wire


def job_spec_to_wire(spec: JobSpec) -> wire.JobSpec:
    return wire.JobSpec(
        name=spec.name,
        description=spec.description,
        priority=spec.priority,
        fail_on_instance_failure=spec.fail_on_instance_failure,
        tasks=[_task_to_wire(task) for task in spec.tasks],
    )


def job_spec_from_wire(message: wire.JobSpec) -> JobSpec:
    return JobSpec(
        name=message.name,
        description=message.description,
        priority=message.priority,
        fail_on_instance_failure=(
            message.fail_on_instance_failure if message.HasField("fail_on_instance_failure") else True
        ),
        tasks=tuple(_task_from_wire(task) for task in message.tasks),
    )


def _task_to_wire(task: TaskSpec) -> wire.TaskSpec:
    needs = task.resources
    return wire.TaskSpec(
        name=task.name,
        after=task.after,
        command=_command_to_wire(task.command),
        instances=task.instances,
        package=task.package,
        env=task.env,
        timeout=_limit_to_wire(task.timeout),
        max_retries=task.max_retries,
        resources=wire.Resources(
            cpu=needs.cpu,
            memory_bytes=needs.memory_bytes,
            slots=needs.slots,
            gpus=needs.gpus,
            pids=needs.pids,
            open_files=needs.open_files,
        ),
        cluster=task.cluster,
        stdout=task.stdout,
        stderr=task.stderr,
        inputs=[
            wire.InputMapping(
                source=taken.source,
                destination=taken.destination,
                writable=taken.writable,
                options=taken.options,
                storage=taken.storage,
            )
            for taken in task.inputs
        ],
        outputs=[
            wire.OutputMapping(source=given.source, destination=given.destination, storage=given.storage)
            for given in task.outputs
        ],
        logs=[wire.LogMapping(source=log.source, destination=log.destination) for log in task.logs],
        storage=task.storage,
        input_locale=task.input_locale,
        input_locks=task.input_locks,
        container=_container_to_wire(task.container),
        isolation=enums.ISOLATION.to_wire(task.isolation) if task.isolation else wire.ISOLATION_UNSPECIFIED,
        disconnect=enums.DISCONNECT_POLICY.to_wire(task.disconnect),
        run_for=_limit_to_wire(task.run_for),
        package_timeout=_limit_to_wire(task.package_timeout),
        mount_timeout=_limit_to_wire(task.mount_timeout),
        upload_timeout=_limit_to_wire(task.upload_timeout),
        on_full_spool=enums.FULL_SPOOL.to_wire(task.on_full_spool),
    )


def _task_from_wire(message: wire.TaskSpec) -> TaskSpec:
    return TaskSpec(
        name=TaskName(message.name),
        after=tuple(TaskName(name) for name in message.after),
        command=_command_from_wire(message.command),
        instances=message.instances if message.HasField("instances") else 1,
        package=message.package,
        env=dict(message.env),
        timeout=_limit_from_wire(message, "timeout"),
        max_retries=message.max_retries,
        resources=_resources_from_wire(message.resources),
        cluster=ClusterName(message.cluster or DEFAULT_CLUSTER),
        stdout=message.stdout,
        stderr=message.stderr,
        inputs=tuple(
            InputMapping(
                source=taken.source,
                destination=taken.destination,
                writable=taken.writable,
                options=taken.options,
                storage=taken.storage,
            )
            for taken in message.inputs
        ),
        outputs=tuple(
            OutputMapping(source=given.source, destination=given.destination, storage=given.storage)
            for given in message.outputs
        ),
        logs=tuple(LogMapping(source=log.source, destination=log.destination) for log in message.logs),
        storage=message.storage,
        input_locale=message.input_locale,
        input_locks=message.input_locks,
        container=_container_from_wire(message.container) if message.HasField("container") else None,
        isolation=enums.ISOLATION.from_wire(message.isolation) if message.isolation else None,
        disconnect=(
            enums.DISCONNECT_POLICY.from_wire(message.disconnect)
            if message.disconnect
            else DisconnectPolicy.KEEP_GOING
        ),
        run_for=_limit_from_wire(message, "run_for"),
        package_timeout=_limit_from_wire(message, "package_timeout"),
        mount_timeout=_limit_from_wire(message, "mount_timeout"),
        upload_timeout=_limit_from_wire(message, "upload_timeout"),
        on_full_spool=(
            enums.FULL_SPOOL.from_wire(message.on_full_spool) if message.on_full_spool else FullSpool.DROP
        ),
    )


_Limit = Literal["timeout", "run_for", "package_timeout", "mount_timeout", "upload_timeout"]


def _limit_to_wire(limit: timedelta | None) -> Duration | None:
    return None if limit is None else duration_to_wire(limit)


def _limit_from_wire(message: wire.TaskSpec, name: _Limit) -> timedelta | None:
    return duration_from_wire(getattr(message, name)) if message.HasField(name) else None


def _command_to_wire(command: Command) -> wire.Command:
    match command:
        case Argv(args=args):
            return wire.Command(argv=wire.Argv(args=args))
        case ShellLine(line=line):
            return wire.Command(shell=line)


def _command_from_wire(message: wire.Command) -> Command:
    if message.WhichOneof("form") == "shell":
        return ShellLine(line=message.shell)
    return Argv(args=tuple(message.argv.args))


def _container_to_wire(container: Container | None) -> wire.Container | None:
    if container is None:
        return None
    return wire.Container(
        image=container.image,
        registry=container.registry,
        archive=container.archive,
        login=container.login,
    )


def _container_from_wire(message: wire.Container) -> Container:
    return Container(
        image=message.image, registry=message.registry, archive=message.archive, login=message.login
    )


def _resources_from_wire(message: wire.Resources) -> Resources:
    return Resources(
        cpu=message.cpu,
        memory_bytes=message.memory_bytes,
        slots=message.slots if message.HasField("slots") else 1,
        gpus=message.gpus,
        pids=message.pids,
        open_files=message.open_files,
    )
