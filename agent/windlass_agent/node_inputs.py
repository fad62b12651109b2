"""How the settings decide what commands see of remote files; a part of the wiring that `agent_parts` does."""

from contextlib import suppress
from pathlib import Path

from windlass_agent.mounts import open_mounter
from windlass_agent.mounts.base import InputMounter
from windlass_agent.mounts.network_mount import NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits
from windlass_agent.settings import AgentSettings


def make_mounter(settings: AgentSettings, boot_id: str) -> InputMounter:
    work, network = settings.work, settings.network
    return open_mounter(
        work.inputs,
        MountLimits(cache_bytes=work.mount_cache_bytes, survey_most=work.mount_survey),
        boot_id=boot_id,
        network=NetworkPolicy(
            hosts=network.hosts, options=network.options, within_s=network.timeout.total_seconds()
        ),
        local=[Path(directory) for directory in settings.local.directories],
    )


def release_all(attempts: Path, mounter: InputMounter) -> None:
    """The commands have ended, and what they read from is not needed any more."""
    with suppress(FileNotFoundError):  # the state directory was removed
        for directory in attempts.iterdir():
            mounter.release(directory)
