"""What an attempt's container is like: written down for `supervise`, before the keeper gets the attempt."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.containers import supervise
from windlass_agent.containers.base import (
    BadImage,
    ContainerEngine,
    ContainerLimits,
    ContainerMount,
    ContainerPlan,
    Image,
)
from windlass_agent.containers.outcome import OUTCOME_FILE, RUN_FILE
from windlass_proto.model.environment import CONTAINER_WORK_DIR

_NOT_IN_ENVIRONMENT = "\n\r"
"""The engines read variables from lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRun:
    """An attempt, as far as its container is concerned."""

    root: Path
    """Its own directory."""
    name: str
    label: str
    image: Image
    argv: tuple[str, ...]
    env: Mapping[str, str]
    network: str
    mounts: tuple[ContainerMount, ...]
    limits: ContainerLimits
    gpus: tuple[str, ...] = ()
    group: int = 0


def write_run(engine: ContainerEngine, run: ContainerRun) -> None:
    """Raises BadImage for what cannot be said to an engine, and OSError."""
    env_file, id_file, outcome = (
        run.root / "container.env",
        run.root / "container.id",
        run.root / OUTCOME_FILE,
    )
    for left in (id_file, outcome):
        left.unlink(missing_ok=True)  # by a preparation that was interrupted
    plan = ContainerPlan(
        name=run.name,
        image=run.image.image_id,
        argv=run.argv,
        label=run.label,
        work_dir=CONTAINER_WORK_DIR,
        network=run.network,
        mounts=run.mounts,
        limits=run.limits,
        env_file=str(env_file),
        id_file=str(id_file),
        gpus=run.gpus,
        group=run.group,
    )
    document = {
        "program": engine.program,
        "env": dict(engine.env),
        "create": engine.create(plan),
        "start": engine.start(run.name),
        "inspect": engine.look_at(run.name),
        "terminate": engine.terminate(run.name),
        "remove": engine.remove(run.name),
        "id_file": str(id_file),
        "env_file": str(env_file),
        "outcome": str(outcome),
        "digest": run.image.digest,
        "memory_bytes": run.limits.memory_bytes,
    }
    _write_private(env_file, environment_lines(run.env))
    _write_private(run.root / RUN_FILE, json.dumps(document))


def command_of(root: Path) -> tuple[str, ...]:
    """What the keeper starts instead of the task's command."""
    return (sys.executable, "-I", "-S", supervise.__file__, str(root / RUN_FILE))


def removal_of(root: Path) -> tuple[str, ...]:
    """Ends and removes the container of an attempt whose command did not come to its own end."""
    return (*command_of(root), "remove")


def environment_lines(env: Mapping[str, str]) -> str:
    for name, value in env.items():
        if any(character in value for character in _NOT_IN_ENVIRONMENT):
            raise BadImage(
                f"env.{name}: must be one line in a container; put more into a file of the package"
            )
    return "".join(f"{name}={value}\n" for name, value in env.items())


def passes_mounts_on(mountinfo: str, directory: str) -> bool:
    """Whether what is mounted below `directory` later can show up elsewhere; from /proc/self/mountinfo."""
    longest, is_shared = "", False
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        point, optional = fields[4], fields[6 : fields.index("-", 6)]
        inside = directory == point or directory.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):
            longest, is_shared = point, any(word.startswith(("shared:", "master:")) for word in optional)
    return is_shared


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
