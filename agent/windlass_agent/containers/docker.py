"""Docker: a client that talks to a daemon by a socket."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windlass_agent.containers.arguments import CLIENT_PATH, STATE_PRINTED, create_arguments
from windlass_agent.containers.base import ContainerPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    client: str
    socket: str
    home: str
    """A directory of the agent's own: the client takes settings and logins from it, and there are none."""
    has_init: bool
    """Whether a small first process can be put before the command: it passes signals on, reaps orphans."""
    options: tuple[str, ...] = ()
    name: str = field(default="docker", init=False)

    @property
    def program(self) -> tuple[str, ...]:
        where = ("--host", f"unix://{self.socket}") if self.socket else ()
        return (self.client, *where, *self.options)

    @property
    def env(self) -> Mapping[str, str]:
        return {"PATH": CLIENT_PATH, "HOME": self.home}

    def ping(self) -> tuple[str, ...]:
        return ("version", "--format", "{{.Server.Version}}")

    def create(self, plan: ContainerPlan) -> tuple[str, ...]:
        init = ("--init",) if self.has_init else ()
        # Quoted, as docker reads it as a line of a table.
        gpus = ("--gpus", f'"device={",".join(plan.gpus)}"') if plan.gpus else ()
        return (*create_arguments(plan), *gpus, *init, plan.image, *plan.argv)

    def start(self, name: str) -> tuple[str, ...]:
        return ("start", "--attach", name)

    def terminate(self, name: str) -> tuple[str, ...]:
        return ("kill", "--signal", "TERM", name)

    def look_at(self, name: str) -> tuple[str, ...]:
        return ("inspect", "--type", "container", "--format", STATE_PRINTED, name)

    def remove(self, name: str) -> tuple[str, ...]:
        return ("rm", "--force", "--volumes", name)

    def list_labelled(self, label: str) -> tuple[str, ...]:
        return ("ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}")

    def login(self, registry: str, username: str, folder: Path) -> tuple[str, ...]:
        return ("--config", str(folder), "login", "--username", username, "--password-stdin", registry)

    def pull(self, reference: str, *, folder: Path | None, is_local: bool) -> tuple[str, ...]:
        # Registries of 127.0.0.0/8 are asked by HTTP without being told.
        config = ("--config", str(folder)) if folder else ()
        return (*config, "pull", "--quiet", reference)

    def look_at_image(self, reference: str) -> tuple[str, ...]:
        return ("image", "inspect", reference)

    def tag(self, image_id: str, reference: str) -> tuple[str, ...]:
        return ("tag", image_id, reference)

    def untag(self, reference: str) -> tuple[str, ...]:
        return ("rmi", reference)

    def load(self, archive: Path) -> tuple[str, ...]:
        return ("load", "--quiet", "--input", str(archive))

    def import_files(self, archive: Path, reference: str) -> tuple[str, ...]:
        return ("import", str(archive), reference)
