"""What a user asks for, as values, and its one canonical JSON form.

The coordinator stores a task's specification as these JSON bytes and hands the very same bytes to the
agent, so that nothing is converted on the hot path (decision 0002). Reading refuses unknown keys: a
newer coordinator's field must not be dropped in silence.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InputMapping:
    """An object-store directory that the command sees as files."""

    source: str
    """Object URL of a directory, such as `oss://bucket/data/`."""
    destination: str
    """Directory on the node; a relative one lies in the work directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMapping:
    """A directory on the node whose files are uploaded when the command has ended."""

    source: str
    """Directory on the node; a relative one lies in the work directory."""
    destination: str
    """Object URL of a directory, such as `oss://bucket/results/`."""


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


_DURATIONS = frozenset({"timeout", "run_for", "package_timeout", "mount_timeout", "upload_timeout"})
_WORDS: Mapping[str, type[StrEnum]] = {"disconnect": DisconnectPolicy, "on_full_spool": FullSpool}


def task_to_json(task: TaskSpec) -> bytes:
    """Canonical: keys sorted, no white space, defaults left out; equal specifications give equal bytes."""
    document = _without_defaults(task)
    document["command"] = (
        {"argv": list(task.command.args)} if isinstance(task.command, Argv) else {"shell": task.command.line}
    )
    for name in _DURATIONS & document.keys():
        document[name] /= timedelta(microseconds=1)
    for name in ("resources", "inputs", "outputs"):
        if name in document:
            value = getattr(task, name)
            document[name] = asdict(value) if name == "resources" else [asdict(item) for item in value]
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
    return TaskSpec(**document)


def _without_defaults(task: TaskSpec) -> dict[str, Any]:
    empty = TaskSpec(name=task.name, command=task.command)
    return {
        f.name: getattr(task, f.name)
        for f in fields(TaskSpec)
        if f.name == "name" or getattr(task, f.name) != getattr(empty, f.name)
    }
