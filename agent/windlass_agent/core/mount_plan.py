"""Where a task's remote directories lie on the node.

A relative path lies in the attempt's work directory. An absolute one is a directory of the attempt too,
bind-mounted on that path in the command's own mount namespace, so that several instances on one machine do
not see each other's files. That needs root.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from windlass_proto.model.specs import InputMapping, TaskSpec
from windlass_proto.model.storage import Location, ObjectLocation, parse_location, parse_object_url

_NOT_TO_COVER = frozenset(
    PurePosixPath(path) for path in ("/", "/bin", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr")
)
"""A command could not start with one of these covered by its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A directory of the node and what it is in the object store."""

    location: ObjectLocation
    directory: Path
    storage: str = ""
    """Name of the stored storage that it is reached with; "" = the task's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputMount:
    """One input, and where the command is to see it."""

    mapping: InputMapping
    location: Location
    directory: Path
    """Below the attempt's own directory; the way there is not trusted."""

    @property
    def what(self) -> str:
        """For messages."""
        return f"input {self.location}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """`directory` appears to the command as `target`."""

    directory: Path
    target: PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    inputs: tuple[InputMount, ...]
    outputs: tuple[Transfer, ...]
    binds: tuple[Bind, ...]
    """Outer directories before those inside them."""


class MountRefused(ValueError):
    """The mapping cannot be had here; the message says which one and what would do."""


def with_node_mounts(spec: TaskSpec, node: tuple[InputMapping, ...]) -> TaskSpec:
    """What the node mounts for everybody gives way to a task's own inputs, as a whole."""
    return spec if spec.inputs or not node else replace(spec, inputs=node)


def plan_mounts(spec: TaskSpec, *, work: Path, mounts: Path, own: Path, may_bind: bool) -> MountPlan:
    """`mounts` gets the directories behind absolute paths; `own` is the agent's. Raises MountRefused."""
    places = _Places(work=work, mounts=mounts, own=PurePosixPath(own), may_bind=may_bind)
    inputs = [_input(places, mapping) for mapping in spec.inputs]
    outputs = [
        _transfer(places, f"output {m.destination}", m.destination, m.source, storage=m.storage)
        for m in spec.outputs
    ]
    binds = sorted(places.binds.values(), key=lambda bind: len(bind.target.parts))
    return MountPlan(inputs=tuple(inputs), outputs=tuple(outputs), binds=tuple(binds))


def wrap_in_namespace(
    argv: Sequence[str], binds: Sequence[Bind], *, unshare: str, mount: str, mkdir: str
) -> tuple[str, ...]:
    """The command, started in a mount namespace of its own with `binds` in place; programs by full path."""
    if not binds:
        return tuple(argv)
    first = len(binds) * 2 + 3
    steps = [f'"$2" -p "${{{n + 1}}}" && "$1" --bind "${{{n}}}" "${{{n + 1}}}"' for n in range(3, first, 2)]
    script = " && ".join([*steps, f"shift {first - 1}", 'exec "$@"'])
    pairs = [part for bind in binds for part in (str(bind.directory), str(bind.target))]
    return (unshare, "--mount", "/bin/sh", "-c", script, "windlass", mount, mkdir, *pairs, *argv)


class _Places:
    """Gives each absolute path its directory; two mappings of one path share it."""

    def __init__(self, *, work: Path, mounts: Path, own: PurePosixPath, may_bind: bool) -> None:
        self._work, self._mounts, self._own, self._may_bind = work, mounts, own, may_bind
        self.binds: dict[PurePosixPath, Bind] = {}

    def directory(self, what: str, path_text: str) -> Path:
        path = PurePosixPath(path_text)
        if ".." in path.parts:
            raise MountRefused(f"{what}: the path {path_text} must not contain '..'")
        if not path.is_absolute():
            return self._work / path
        if not self._may_bind:
            raise MountRefused(
                f"{what}: the absolute path {path_text} needs an agent that runs as root;"
                " use a path relative to the work directory"
            )
        path = PurePosixPath("/", *path.parts[1:])  # POSIX keeps two leading slashes apart from one
        if path in _NOT_TO_COVER:
            raise MountRefused(f"{what}: the path {path_text} is part of the system; use another one")
        if path.is_relative_to(self._own) or self._own.is_relative_to(path):
            raise MountRefused(
                f"{what}: the path {path_text} is where the agent keeps its own; use another one"
            )
        if path not in self.binds:
            self.binds[path] = Bind(directory=self._mounts / str(len(self.binds)), target=path)
        return self.binds[path].directory


def _input(places: _Places, mapping: InputMapping) -> InputMount:
    what = f"input {mapping.source}"
    try:
        location = parse_location(mapping.source)
    except ValueError as problem:
        raise MountRefused(f"{what}: {problem}") from problem
    return InputMount(
        mapping=mapping, location=location, directory=places.directory(what, mapping.destination)
    )


def _transfer(places: _Places, what: str, url: str, path: str, *, storage: str) -> Transfer:
    try:
        location = parse_object_url(url)
    except ValueError as problem:
        raise MountRefused(f"{what}: {problem}") from problem
    return Transfer(location=location, directory=places.directory(what, path), storage=storage)
