"""What a user asks for, as values, and its one canonical JSON form.

The coordinator stores a task's specification as these JSON bytes and hands the very same bytes to the
agent, so that nothing is converted on the hot path (decision 0002). Reading refuses unknown keys: a
newer coordinator's field must not be dropped in silence.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, TaskName
from windlass_proto.model.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Argv:
    """A program and its arguments, started without a shell."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellLine:
    """One line, run by `/bin/sh -c`."""

    line: str


Command = Argv | ShellLine


class DisconnectPolicy(StrEnum):
    """What happens to a running instance whose node and the coordinator do not hear each other
    (protocol.md, section 6)."""

    KEEP_GOING = "keep_going"
    """The command goes on; after a while another node starts the instance too."""
    NO_OVERLAP = "no_overlap"
    """The command is ended before any other node may start the instance."""
    FAST_REPLACE = "fast_replace"
    """The command is ended at once, so that another node may start the instance soon."""

    @property
    def run_for(self) -> timedelta:
        """How long the command goes on after its node's lease has expired, unless the task says."""
        return _RUN_FOR[self]


_RUN_FOR = {
    DisconnectPolicy.KEEP_GOING: timedelta(hours=24),
    DisconnectPolicy.NO_OVERLAP: timedelta(minutes=30),
    DisconnectPolicy.FAST_REPLACE: timedelta(0),
}


class FullSpool(StrEnum):
    """What happens to output when the node has no more room for it."""

    DROP = "drop"
    """It is dropped, counted and shown as a gap."""
    BLOCK = "block"
    """The command waits until there is room again."""


class Isolation(StrEnum):
    """What a task can reach of its node (security.md, section 5)."""

    DEV = "dev"
    """Everything that the agent's user can: for a machine of one's own."""
    STANDARD = "standard"
    """Its own user, mounts and limits: for people who know each other."""
    STRICT = "strict"
    """Also its own network, processes and a read-only system: for code that nobody has read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputMapping:
    """A remote directory that the command sees as files."""

    source: str
    """URL of a directory, such as `oss://bucket/data/` or `nfs://host:/exports/data`."""
    destination: str
    """Directory on the node; a relative one lies in the work directory."""
    writable: bool = False
    """Whether the command may change what is there; network file systems only."""
    options: str = ""
    """Mount options of a network file system, separated by commas."""
    storage: str = ""
    """Name of the stored storage for this one; "" = the task's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMapping:
    """A directory on the node whose files are uploaded when the command has ended."""

    source: str
    """Directory on the node; a relative one lies in the work directory."""
    destination: str
    """Object URL of a directory, such as `oss://bucket/results/`."""
    storage: str = ""
    """Name of the stored storage for this one; "" = the task's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMapping:
    """A file on the node that is copied out after the command, whatever became of it."""

    source: str
    """File on the node; a relative one lies in the work directory."""
    destination: str
    """Object URL of a file, or of a directory that gets a file of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container image. At most one of `registry` and `archive` is given."""

    image: str = ""
    """Such as `debian:12` or `localhost:5000/tool`; "" = what the archive holds."""
    registry: str = ""
    """Object URL of a directory that holds a registry; the node serves it and pulls from there."""
    archive: str = ""
    """Object URL of an image saved as a tar."""
    login: str = ""
    """Name of the stored login for the image's registry; "" = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task runs `instances` copies of one command."""

    name: TaskName
    command: Command
    after: tuple[TaskName, ...] = ()
    instances: int = 1
    package: str = ""
    """Object URL of an archive that is unpacked into the work directory; "" = none."""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta | None = None
    """Of one attempt of one instance; None = no limit."""
    max_retries: int = 0
    """Further attempts after one failed by the command's own doing."""
    resources: Resources = Resources()
    cluster: ClusterName = DEFAULT_CLUSTER
    stdout: str = ""
    """Object URL of the directory that gets `stdout.<job>.<task>.<index>`; "" = none."""
    stderr: str = ""
    """Object URL of the directory that gets `stderr.<job>.<task>.<index>`; "" = none."""
    inputs: tuple[InputMapping, ...] = ()
    outputs: tuple[OutputMapping, ...] = ()
    disconnect: DisconnectPolicy = DisconnectPolicy.KEEP_GOING
    run_for: timedelta | None = None
    """How long the command goes on after its node's lease has expired; None = the policy's own."""
    package_timeout: timedelta | None = None
    """For fetching and unpacking the package; None = the node's own."""
    mount_timeout: timedelta | None = None
    """For all inputs; None = the node's own."""
    upload_timeout: timedelta | None = None
    """For all outputs; None = the node's own."""
    on_full_spool: FullSpool = FullSpool.DROP
    logs: tuple[LogMapping, ...] = ()
    storage: str = ""
    """Name of the stored storage that all object URLs mean; "" = the node's own for the scheme."""
    input_locale: str = ""
    """In which the command sees names of mounted files, such as GBK; "" = UTF-8."""
    input_locks: bool = False
    """Whether file locks work on mounts."""
    container: Container | None = None
    """Run in it; None = on the node itself."""
    isolation: Isolation | None = None
    """At least as strict; None = the node's own."""

    @property
    def outlives_lease_for(self) -> timedelta:
        """`run_for`, or the policy's own."""
        return self.disconnect.run_for if self.run_for is None else self.run_for


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job is a DAG of tasks."""

    name: str
    tasks: tuple[TaskSpec, ...]
    description: str = ""
    priority: int = 0
    """Higher runs first."""
    fail_on_instance_failure: bool = True
    """Whether the first instance that fails for good ends the job."""


_ALWAYS = frozenset({"cpu", "memory_bytes", "slots"})
"""Of resources; written whatever they are."""
_DURATIONS = frozenset({"timeout", "run_for", "package_timeout", "mount_timeout", "upload_timeout"})
_WORDS: Mapping[str, type[StrEnum]] = {
    "disconnect": DisconnectPolicy,
    "on_full_spool": FullSpool,
    "isolation": Isolation,
}


def task_to_json(task: TaskSpec) -> bytes:
    """Canonical: keys sorted, no white space, defaults left out; equal specifications give equal bytes."""
    document = _without_defaults(task)
    document["command"] = (
        {"argv": list(task.command.args)} if isinstance(task.command, Argv) else {"shell": task.command.line}
    )
    for name in _DURATIONS & document.keys():
        document[name] /= timedelta(microseconds=1)
    for name in ("resources", "container"):
        if name in document:
            document[name] = _plain(getattr(task, name))
    for name in ("inputs", "outputs", "logs"):
        if name in document:
            document[name] = [_plain(item) for item in getattr(task, name)]
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def task_from_json(data: bytes) -> TaskSpec:
    """The inverse of `task_to_json`. Raises ValueError for anything that it did not write."""
    document: dict[str, Any] = json.loads(data)
    unknown = document.keys() - {f.name for f in fields(TaskSpec)}
    if unknown:
        raise ValueError(f"task specification has unknown keys: {', '.join(sorted(unknown))}")
    command = document["command"]
    document["command"] = (
        Argv(args=tuple(command["argv"])) if "argv" in command else ShellLine(line=command["shell"])
    )
    for name in _DURATIONS & document.keys():
        document[name] = timedelta(microseconds=document[name])
    for name, words in _WORDS.items():
        if name in document:
            document[name] = words(document[name])
    if "resources" in document:
        document["resources"] = Resources(**document["resources"])
    document["after"] = tuple(document.get("after", ()))
    document["inputs"] = tuple(InputMapping(**item) for item in document.get("inputs", ()))
    document["outputs"] = tuple(OutputMapping(**item) for item in document.get("outputs", ()))
    document["logs"] = tuple(LogMapping(**item) for item in document.get("logs", ()))
    if "container" in document:
        document["container"] = Container(**document["container"])
    return TaskSpec(**document)


def _plain(part: Resources | Container | InputMapping | OutputMapping | LogMapping) -> dict[str, Any]:
    """Without what is not used, so that older specifications keep their bytes."""
    return {
        f.name: getattr(part, f.name)
        for f in fields(part)
        if f.default is MISSING or getattr(part, f.name) != f.default or f.name in _ALWAYS
    }


def _without_defaults(task: TaskSpec) -> dict[str, Any]:
    empty = TaskSpec(name=task.name, command=task.command)
    return {
        f.name: getattr(task, f.name)
        for f in fields(TaskSpec)
        if f.name == "name" or getattr(task, f.name) != getattr(empty, f.name)
    }
