"""What a past attempt's command is to find: the document that `run_here` goes by.

Paths in it are relative to the folder that it lies in, so that the folder may be anywhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from windlass.replay.past import PastAttempt
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import (
    DEFAULT_PATH,
    NodeVariables,
    attempt_environment,
    environment_inside,
    task_environment,
)
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.specs import Argv, Command, Isolation, TaskSpec

WORK, TEMPORARY, IMAGE = "work", "tmp", "image.tar"
_OF_WHOEVER_RUNS_IT = ("HOME", "USER", "LOGNAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlace:
    """A mapping of the task: what is remote, where it lies in the folder, and what the command calls it."""

    url: str
    folder: str
    target: str
    """Absolute; "" = it lies in the work directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    what: str
    outcome: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    folders: Mapping[str, str]
    """Variables whose values are folders."""
    own: tuple[str, ...]
    """Variables that whoever runs it has of his own."""
    inputs: tuple[RemotePlace, ...]
    outputs: tuple[RemotePlace, ...]
    timeout_s: float | None
    memory_bytes: int
    pids: int
    open_files: int
    cpu: float
    image: str
    """Of the container; "" with `has_container`: what `image.tar` holds."""
    has_container: bool
    network: str
    """Of the container."""
    notes: tuple[str, ...]
    """What is not as it was on the node."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @property
    def binds(self) -> tuple[RemotePlace, ...]:
        return tuple(place for place in (*self.inputs, *self.outputs) if place.target)


def plan_replay(past: PastAttempt) -> ReplayPlan:
    spec = past.spec
    places = _Places()
    inputs = tuple(places.of(taken.source, taken.destination) for taken in spec.inputs)
    outputs = tuple(places.of(given.destination, given.source) for given in spec.outputs)
    needs = spec.resources
    return ReplayPlan(
        what=past.name,
        outcome=past.outcome,
        argv=_argv(spec.command),
        env=_environment(past),
        folders=_folders(spec),
        own=() if spec.container else tuple(name for name in _OF_WHOEVER_RUNS_IT if name not in spec.env),
        inputs=inputs,
        outputs=outputs,
        timeout_s=None if spec.timeout is None else spec.timeout.total_seconds(),
        memory_bytes=needs.memory_bytes,
        pids=needs.pids,
        open_files=needs.open_files,
        cpu=needs.cpu,
        image=spec.container.image if spec.container else "",
        has_container=spec.container is not None,
        network="none" if spec.isolation is Isolation.STRICT else "host",
        notes=tuple(_notes(spec)),
    )


class _Places:
    """Gives each absolute path its folder; two mappings of one path share it."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, url: str, path_text: str) -> RemotePlace:
        path = PurePosixPath(path_text)
        if not path.is_absolute():
            return RemotePlace(url=url, folder=f"{WORK}/{path}", target="")
        target = str(PurePosixPath("/", *path.parts[1:]))
        folder = self._folders.setdefault(target, f"mounts/{len(self._folders)}")
        return RemotePlace(url=url, folder=folder, target=target)


def _environment(past: PastAttempt) -> dict[str, str]:
    spec, status = past.spec, past.status
    node = NodeVariables(
        node_id=status.node_id,
        node_name=status.node_name,
        path=DEFAULT_PATH,
        home="",
        user="",
        lang="C.UTF-8",
        tmpdir="/tmp",
        region="",
        oss_host="",
        worker_id=status.node_id,
    )
    batch = AssignmentBatch(
        task_key=TaskKey(0),
        job_id=past.job_id,
        task_name=spec.name,
        instance_count=spec.instances,
        spec=b"",
        cluster=spec.cluster,
        index=(),
        attempt=(),
        fence=(),
    )
    ref = AttemptRef(task_key=TaskKey(0), index=past.index, attempt=status.attempt, fence=Fence(status.fence))
    env = attempt_environment(task_environment(node, batch, spec.env), spec.env, ref)
    return environment_inside(env, spec.env) if spec.container else env


def _folders(spec: TaskSpec) -> dict[str, str]:
    if spec.container is not None:
        return {}
    own = {"WINDLASS_WORK_DIR": WORK, "TMPDIR": TEMPORARY, "PWD": WORK}
    return {name: folder for name, folder in own.items() if name not in spec.env}


def _argv(command: Command) -> tuple[str, ...]:
    return command.args if isinstance(command, Argv) else ("/bin/sh", "-c", command.line)


def _notes(spec: TaskSpec) -> list[str]:
    notes = []
    if spec.isolation is not None:
        notes.append(f"isolation {spec.isolation} is not built up: the command can do what you can")
    if spec.resources.gpus:
        notes.append("no GPU is assigned: the command sees those of this machine")
    if spec.storage or any(taken.storage for taken in spec.inputs):
        notes.append("stored storages cannot be read back: your own storage file is used instead")
    if spec.container is None:
        notes.append("PATH, LANG, HOME and USER are those of a node without settings, and yours")
    return notes
