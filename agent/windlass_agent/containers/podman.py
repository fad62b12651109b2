"""Podman: no daemon; each container has a small process of its own that watches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windlass_agent.containers.arguments import CLIENT_PATH, STATE_PRINTED, create_arguments
from windlass_agent.containers.base import ContainerPlan

_PROCESSES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    client: str
    runtime: str
    """The program that makes containers; "" = podman's own choice."""
    home: str
    has_init: bool
    """Whether a small first process can be put before the command: it passes signals on, reaps orphans."""
    options: tuple[str, ...] = ()
    name: str = field(default="podman", init=False)

    @property
    def program(self) -> tuple[str, ...]:
        # Containers begin in the keeper's group, which is no systemd unit.
        runtime = ("--runtime", self.runtime) if self.runtime else ()
        return (self.client, "--cgroup-manager", "cgroupfs", *runtime, *self.options)

    @property
    def env(self) -> Mapping[str, str]:
        return {"PATH": CLIENT_PATH, "HOME": self.home}

    def ping(self) -> tuple[str, ...]:
        return ("info", "--format", "{{.Version.Version}}")

    def create(self, plan: ContainerPlan) -> tuple[str, ...]:
        # Its usual limit of processes is above what root may be allowed, which would be an error.
        limits = ("--ulimit", f"nproc={_PROCESSES}:{_PROCESSES}")
        init = ("--init",) if self.has_init else ()
        # By the names of the device interface that nvidia-ctk writes down for the machine.
        gpus = [word for name in plan.gpus for word in ("--device", f"nvidia.com/gpu={name}")]
        return (*create_arguments(plan), "--pull", "never", *limits, *gpus, *init, plan.image, *plan.argv)

    def start(self, name: str) -> tuple[str, ...]:
        return ("start", "--attach", name)

    def terminate(self, name: str) -> tuple[str, ...]:
        return ("kill", "--signal", "TERM", name)

    def look_at(self, name: str) -> tuple[str, ...]:
        return ("inspect", "--type", "container", "--format", STATE_PRINTED, name)

    def remove(self, name: str) -> tuple[str, ...]:
        return ("rm", "--force", "--volumes", "--time", "0", name)

    def list_labelled(self, label: str) -> tuple[str, ...]:
        return ("ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}")

    def login(self, registry: str, username: str, folder: Path) -> tuple[str, ...]:
        file = ("--authfile", str(folder / "auth.json"))
        return ("login", *file, "--username", username, "--password-stdin", registry)

    def pull(self, reference: str, *, folder: Path | None, is_local: bool) -> tuple[str, ...]:
        file = ("--authfile", str(folder / "auth.json")) if folder else ()
        plain = ("--tls-verify=false",) if is_local else ()
        return ("pull", "--quiet", *file, *plain, reference)

    def look_at_image(self, reference: str) -> tuple[str, ...]:
        return ("image", "inspect", reference)

    def tag(self, image_id: str, reference: str) -> tuple[str, ...]:
        return ("tag", image_id, reference)

    def untag(self, reference: str) -> tuple[str, ...]:
        return ("rmi", reference)

    def load(self, archive: Path) -> tuple[str, ...]:
        return ("load", "--quiet", "--input", str(archive))

    def import_files(self, archive: Path, reference: str) -> tuple[str, ...]:
        return ("import", "--quiet", str(archive), reference)
