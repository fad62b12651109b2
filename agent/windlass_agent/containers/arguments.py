"""What docker and podman have in common."""

import json
from pathlib import Path

from windlass_agent.containers.base import BadImage, ContainerMount, ContainerPlan, Image

_NOT_IN_MOUNTS = ',"\n\r'
"""The engines read `--mount` as a line of a table."""
CLIENT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE_PRINTED = "{{json .State}}"


def create_arguments(plan: ContainerPlan) -> list[str]:
    """Root in the container, as the services had it whose jobs run here, but without any of its powers."""
    limits = plan.limits
    arguments = [
        *("create", "--name", plan.name, "--label", plan.label, "--cidfile", plan.id_file),
        *("--user", "0:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--network", plan.network, "--log-driver", "none"),
        *("--env-file", plan.env_file, "--workdir", plan.work_dir, "--entrypoint", ""),
    ]
    if plan.group:
        arguments += ["--group-add", str(plan.group)]
    if limits.cpu:
        arguments += ["--cpus", f"{limits.cpu:g}"]
    if limits.memory_bytes:
        # The same number twice: no swap on top.
        arguments += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    if limits.pids:
        arguments += ["--pids-limit", str(limits.pids)]
    if limits.open_files:
        arguments += ["--ulimit", f"nofile={limits.open_files}:{limits.open_files}"]
    for mount in plan.mounts:
        arguments += ["--mount", _mount_argument(mount)]
    return arguments


def _mount_argument(mount: ContainerMount) -> str:
    for path in (mount.source, mount.target):
        if any(character in path for character in _NOT_IN_MOUNTS):
            raise BadImage(f"the path {path!r} must not hold a comma or a quote in a container")
    propagation = ",bind-propagation=rslave" if mount.is_slave else ""
    return f"type=bind,source={mount.source},target={mount.target}{propagation}"


def program_of(name: str, directories: str = CLIENT_PATH) -> str | None:
    """Where the machine's own one is: with an own PATH, whatever the agent was started with."""
    preferred = ("/usr/bin", "/usr/sbin", *directories.split(":"))
    found = (Path(directory) / name for directory in preferred)
    return next((str(path) for path in found if path.is_file()), None)


def read_image(printed: str, reference: str) -> Image:
    """What `look_at_image` printed. Raises ValueError or LookupError for anything else."""
    about = json.loads(printed)[0]
    image_id = about["Id"] if about["Id"].startswith("sha256:") else f"sha256:{about['Id']}"
    return Image(image_id=image_id, digest=_digest(about.get("RepoDigests") or [], reference) or image_id)


def _digest(repo_digests: list[str], reference: str) -> str:
    """Of the repository that was asked for; an image may have come from several."""
    repository = repository_of(reference)
    digests = [digest.partition("@") for digest in repo_digests]
    return next(
        (digest for name, _, digest in digests if name == repository or name.endswith(f"/{repository}")), ""
    )


def repository_of(reference: str) -> str:
    """`localhost:5000/tool:1@sha256:...` -> `localhost:5000/tool`."""
    name = reference.partition("@")[0]
    head, separator, last = name.rpartition("/")
    return f"{head}{separator}{last.partition(':')[0]}"


def registry_of(reference: str) -> str:
    """The host that an image comes from; a first part without a dot or a port is no host."""
    first, separator, _ = reference.partition("/")
    is_host = separator and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"
