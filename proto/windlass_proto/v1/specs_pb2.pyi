import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_DEV: _ClassVar[Isolation]
    ISOLATION_STANDARD: _ClassVar[Isolation]
    ISOLATION_STRICT: _ClassVar[Isolation]

class DisconnectPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISCONNECT_POLICY_UNSPECIFIED: _ClassVar[DisconnectPolicy]
    DISCONNECT_POLICY_KEEP_GOING: _ClassVar[DisconnectPolicy]
    DISCONNECT_POLICY_NO_OVERLAP: _ClassVar[DisconnectPolicy]
    DISCONNECT_POLICY_FAST_REPLACE: _ClassVar[DisconnectPolicy]

class FullSpool(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FULL_SPOOL_UNSPECIFIED: _ClassVar[FullSpool]
    FULL_SPOOL_DROP: _ClassVar[FullSpool]
    FULL_SPOOL_BLOCK: _ClassVar[FullSpool]
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_DEV: Isolation
ISOLATION_STANDARD: Isolation
ISOLATION_STRICT: Isolation
DISCONNECT_POLICY_UNSPECIFIED: DisconnectPolicy
DISCONNECT_POLICY_KEEP_GOING: DisconnectPolicy
DISCONNECT_POLICY_NO_OVERLAP: DisconnectPolicy
DISCONNECT_POLICY_FAST_REPLACE: DisconnectPolicy
FULL_SPOOL_UNSPECIFIED: FullSpool
FULL_SPOOL_DROP: FullSpool
FULL_SPOOL_BLOCK: FullSpool

class JobSpec(_message.Message):
    __slots__ = ("name", "description", "priority", "fail_on_instance_failure", "tasks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FAIL_ON_INSTANCE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    priority: int
    fail_on_instance_failure: bool
    tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., priority: _Optional[int] = ..., fail_on_instance_failure: _Optional[bool] = ..., tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("name", "after", "command", "instances", "package", "env", "timeout", "max_retries", "resources", "cluster", "stdout", "stderr", "inputs", "outputs", "disconnect", "run_for", "package_timeout", "mount_timeout", "upload_timeout", "on_full_spool", "logs", "storage", "input_locale", "input_locks", "container", "isolation")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    RUN_FOR_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MOUNT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ON_FULL_SPOOL_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    INPUT_LOCALE_FIELD_NUMBER: _ClassVar[int]
    INPUT_LOCKS_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: _containers.RepeatedScalarFieldContainer[str]
    command: Command
    instances: int
    package: str
    env: _containers.ScalarMap[str, str]
    timeout: _duration_pb2.Duration
    max_retries: int
    resources: Resources
    cluster: str
    stdout: str
    stderr: str
    inputs: _containers.RepeatedCompositeFieldContainer[InputMapping]
    outputs: _containers.RepeatedCompositeFieldContainer[OutputMapping]
    disconnect: DisconnectPolicy
    run_for: _duration_pb2.Duration
    package_timeout: _duration_pb2.Duration
    mount_timeout: _duration_pb2.Duration
    upload_timeout: _duration_pb2.Duration
    on_full_spool: FullSpool
    logs: _containers.RepeatedCompositeFieldContainer[LogMapping]
    storage: str
    input_locale: str
    input_locks: bool
    container: Container
    isolation: Isolation
    def __init__(self, name: _Optional[str] = ..., after: _Optional[_Iterable[str]] = ..., command: _Optional[_Union[Command, _Mapping]] = ..., instances: _Optional[int] = ..., package: _Optional[str] = ..., env: _Optional[_Mapping[str, str]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_retries: _Optional[int] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., cluster: _Optional[str] = ..., stdout: _Optional[str] = ..., stderr: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[InputMapping, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[OutputMapping, _Mapping]]] = ..., disconnect: _Optional[_Union[DisconnectPolicy, str]] = ..., run_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., package_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mount_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., upload_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., on_full_spool: _Optional[_Union[FullSpool, str]] = ..., logs: _Optional[_Iterable[_Union[LogMapping, _Mapping]]] = ..., storage: _Optional[str] = ..., input_locale: _Optional[str] = ..., input_locks: _Optional[bool] = ..., container: _Optional[_Union[Container, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, str]] = ...) -> None: ...

class Container(_message.Message):
    __slots__ = ("image", "registry", "archive", "login")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    image: str
    registry: str
    archive: str
    login: str
    def __init__(self, image: _Optional[str] = ..., registry: _Optional[str] = ..., archive: _Optional[str] = ..., login: _Optional[str] = ...) -> None: ...

class LogMapping(_message.Message):
    __slots__ = ("source", "destination")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    source: str
    destination: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("argv", "shell")
    ARGV_FIELD_NUMBER: _ClassVar[int]
    SHELL_FIELD_NUMBER: _ClassVar[int]
    argv: Argv
    shell: str
    def __init__(self, argv: _Optional[_Union[Argv, _Mapping]] = ..., shell: _Optional[str] = ...) -> None: ...

class Argv(_message.Message):
    __slots__ = ("args",)
    ARGS_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, args: _Optional[_Iterable[str]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu", "memory_bytes", "slots", "gpus", "pids", "open_files")
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    cpu: float
    memory_bytes: int
    slots: int
    gpus: int
    pids: int
    open_files: int
    def __init__(self, cpu: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., slots: _Optional[int] = ..., gpus: _Optional[int] = ..., pids: _Optional[int] = ..., open_files: _Optional[int] = ...) -> None: ...

class InputMapping(_message.Message):
    __slots__ = ("source", "destination", "writable", "options", "storage")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    source: str
    destination: str
    writable: bool
    options: str
    storage: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ..., writable: _Optional[bool] = ..., options: _Optional[str] = ..., storage: _Optional[str] = ...) -> None: ...

class OutputMapping(_message.Message):
    __slots__ = ("source", "destination", "storage")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    source: str
    destination: str
    storage: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ..., storage: _Optional[str] = ...) -> None: ...
