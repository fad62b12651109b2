"""Which container engine the node has: docker where its daemon answers, else podman."""

from pathlib import Path

from windlass_agent.containers.arguments import program_of
from windlass_agent.containers.base import ContainerEngine, EngineSetting, EngineUnavailable
from windlass_agent.containers.client import call
from windlass_agent.containers.docker import Docker
from windlass_agent.containers.podman import Podman

_PING_S = 10.0
_DOCKER_INIT = ("/usr/libexec/docker/docker-init", "/usr/bin/docker-init", "/usr/local/bin/docker-init")
_PODMAN_INIT = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/local/libexec/podman/catatonit")


def find_engine(setting: EngineSetting, home: Path) -> ContainerEngine:
    """One that answers. Raises EngineUnavailable that says what was tried."""
    if setting.engine == "none":
        raise EngineUnavailable(
            "containers are switched off on this node (its setting work.container_engine)"
        )
    tried = []
    for engine in _candidates(setting, home):
        answer = call(engine, engine.ping(), timeout_s=_PING_S)
        if answer.code == 0:
            return engine
        tried.append(f"{engine.name}: {answer.why}")
    why = "; ".join(tried) or f"{_names(setting)} is not installed"
    raise EngineUnavailable(f"this node has no container engine that works ({why})")


def _names(setting: EngineSetting) -> str:
    return "neither docker nor podman" if setting.engine == "auto" else setting.engine


def _candidates(setting: EngineSetting, home: Path) -> list[ContainerEngine]:
    found: list[ContainerEngine] = []
    docker, podman = program_of("docker"), program_of("podman")
    if docker and setting.engine in ("auto", "docker"):
        found.append(
            Docker(
                client=docker,
                socket=setting.socket,
                home=str(home),
                has_init=_is_there(_DOCKER_INIT),
                options=setting.options,
            )
        )
    if podman and setting.engine in ("auto", "podman"):
        found.append(
            Podman(
                client=podman,
                runtime=program_of("runc") or "",
                home=str(home),
                has_init=_is_there(_PODMAN_INIT),
                options=setting.options,
            )
        )
    return found


def _is_there(paths: tuple[str, ...]) -> bool:
    return any(Path(path).is_file() for path in paths)
