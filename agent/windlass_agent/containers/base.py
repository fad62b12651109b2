"""What a container engine can be told: the argument lists of its command-line program, one file per engine.

An engine builds arguments and reads answers; nothing here starts a process (`client`, `supervise`). Values of
the task's environment and passwords are in no argument: every user of the machine can read those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from windlass_proto.errors import InvalidRequest, Unavailable


class BadImage(InvalidRequest):
    """The user's image cannot be had: there is none of that name, or it may not be read."""


class EngineUnavailable(Unavailable):
    """The engine, a registry or the way to it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetting:
    """How the node's engine is reached."""

    engine: str
    """`auto`, `docker`, `podman` or `none`."""
    socket: str
    """Of docker's daemon; "" = where it usually is."""
    options: tuple[str, ...]
    """Given to the engine's program before everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMount:
    """`source` of the node appears in the container as `target`."""

    source: str
    target: str
    is_slave: bool = False
    """What is mounted below `source` later appears too: needs a source whose mounts are shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLimits:
    """0 = none, in each."""

    cpu: float
    memory_bytes: int
    pids: int
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """A container as it is to be made."""

    name: str
    image: str
    """An id, so that what was looked at is what runs."""
    argv: tuple[str, ...]
    label: str
    work_dir: str
    network: str
    mounts: tuple[ContainerMount, ...]
    limits: ContainerLimits
    env_file: str
    id_file: str
    """Gets the container's id."""
    gpus: tuple[str, ...] = ()
    """Of the node's, by index or UUID; inside they are numbered from 0."""
    group: int = 0
    """One more for its user, by number; 0 = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that the node has."""

    image_id: str
    digest: str
    """Of the manifest that its registry has; of the image itself when it came from none."""


class ContainerEngine(Protocol):
    """Argument lists are without the program, which `program` begins with."""

    @property
    def name(self) -> str: ...

    @property
    def program(self) -> tuple[str, ...]:
        """With the options that all its commands get."""

    @property
    def env(self) -> Mapping[str, str]:
        """Of its program: nothing of the task's, which could steer it, and nothing of the agent's."""

    def ping(self) -> tuple[str, ...]:
        """Succeeds when the engine can be used."""

    def create(self, plan: ContainerPlan) -> tuple[str, ...]: ...

    def start(self, name: str) -> tuple[str, ...]:
        """Its output becomes the output of the program, which ends when it ends."""

    def terminate(self, name: str) -> tuple[str, ...]:
        """SIGTERM to its first process."""

    def look_at(self, name: str) -> tuple[str, ...]:
        """Prints its state as one JSON object: `Status`, `Running`, `ExitCode`, `OOMKilled`, `Error`."""

    def remove(self, name: str) -> tuple[str, ...]:
        """Ends it at once, too."""

    def list_labelled(self, label: str) -> tuple[str, ...]:
        """Prints their names, one a line."""

    def login(self, registry: str, username: str, folder: Path) -> tuple[str, ...]:
        """Leaves what it was given by stdin in `folder`, for `pull`."""

    def pull(self, reference: str, *, folder: Path | None, is_local: bool) -> tuple[str, ...]:
        """`folder` of a login; `is_local`: a registry on this machine, which speaks plain HTTP."""

    def look_at_image(self, reference: str) -> tuple[str, ...]:
        """Prints a JSON list of one object with `Id` and `RepoDigests`; fails when it is not there."""

    def tag(self, image_id: str, reference: str) -> tuple[str, ...]:
        """Also keeps the image from being removed as one that nobody names."""

    def untag(self, reference: str) -> tuple[str, ...]: ...

    def load(self, archive: Path) -> tuple[str, ...]:
        """Of what `save` made; prints the names of what it held."""

    def import_files(self, archive: Path, reference: str) -> tuple[str, ...]:
        """Of what `export` made, or any tar of a file system."""
