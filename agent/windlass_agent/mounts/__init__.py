"""The seam of storage schemes: one file each, opened here when first used (their libraries are heavy).

Which server a scheme means is known twice: the node has profiles of its own, and an attempt may name stored
ones, which the coordinator handed out for it alone.
"""

import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from windlass_agent.mounts.base import BadMapping, InputMounter, Storage, StorageOpener
from windlass_agent.mounts.copied_inputs import CopiedInputs, NoMounts
from windlass_agent.mounts.fuse_daemon import SYSTEM_PATH, find_rclone
from windlass_agent.mounts.kernel import why_not_mountable
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.network_mount import NetworkMounts, NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits, NodeMounts
from windlass_proto.model.storage import OBJECT_SCHEMES, StorageProfile, StorageProfiles


class InputWay(StrEnum):
    """How inputs come to a command."""

    AUTO = "auto"
    """Mounted where the node can, else copied."""
    MOUNT = "mount"
    """Mounted; a node that cannot fails the attempt, and another one may have it."""
    COPY = "copy"
    """Copied down before the command starts."""


class Storages:
    """The storage behind each scheme of the node's own profiles; opened once, shared by all attempts."""

    def __init__(self, profiles: StorageProfiles, *, threads: int) -> None:
        self._profiles = profiles
        self._threads = threads
        self._open: dict[str, Storage] = {}
        # Attempts of one task share what they have open; with the last of them it is gone, keys and all.
        self._stored: WeakValueDictionary[StorageProfile, Storage] = WeakValueDictionary()
        self._lock = Lock()

    def for_scheme(self, scheme: str, *, storage: str = "") -> Storage:
        """Raises BadMapping when nothing is configured for the scheme, and for every stored one."""
        if storage:
            raise BadMapping(f"the stored storage {storage!r} was not fetched for this attempt")
        with self._lock:
            if scheme not in self._open:
                self._open[scheme] = open_storage(scheme, self._profiles, threads=self._threads)
            return self._open[scheme]

    def for_attempt(self, stored: Mapping[str, StorageProfile], *, default: str) -> StorageOpener:
        """With the storages that its task names; `default` = the one of all URLs without their own."""
        return _AttemptStorages(self, stored, default=default)

    def open_stored(self, scheme: str, profile: StorageProfile) -> Storage:
        """One that an attempt has fetched."""
        here = profile.at_provider(scheme)
        with self._lock:
            storage = self._stored.get(here)
            if storage is None:
                profiles = StorageProfiles(by_scheme={scheme: here})
                storage = self._stored[here] = open_storage(scheme, profiles, threads=self._threads)
            return storage


class _AttemptStorages:
    """First what is stored under the name, then what the node has for the scheme."""

    def __init__(self, node: Storages, stored: Mapping[str, StorageProfile], *, default: str) -> None:
        self._node, self._stored, self._default = node, dict(stored), default
        self._open: dict[tuple[str, str], Storage] = {}

    def for_scheme(self, scheme: str, *, storage: str = "") -> Storage:
        name = storage or self._default
        if not name:
            return self._node.for_scheme(scheme)
        if name not in self._stored:
            raise BadMapping(f"the stored storage {name!r} was not fetched for this attempt")
        if (scheme, name) not in self._open:
            self._open[scheme, name] = self._node.open_stored(scheme, self._stored[name])
        return self._open[scheme, name]


def open_storage(scheme: str, profiles: StorageProfiles, *, threads: int) -> Storage:
    if scheme in OBJECT_SCHEMES:
        from windlass_agent.mounts.object_store import ObjectStore

        try:
            return ObjectStore(profiles.for_scheme(scheme), threads=threads)
        except LookupError as problem:
            raise BadMapping(str(problem)) from problem
    raise BadMapping(f"{scheme}:// is no storage scheme that is known here")


def open_mounter(
    way: InputWay,
    limits: MountLimits,
    *,
    boot_id: str,
    network: NetworkPolicy,
    local: Sequence[Path],
) -> InputMounter:
    """What the settings ask for, as far as this machine lets it."""
    directories = LocalDirectories(local)
    if way is InputWay.COPY:
        return CopiedInputs("the setting work.inputs is copy", local=directories)
    rclone = find_rclone()
    why = why_not_mountable(rclone)
    if rclone is not None and not why:
        networks = NetworkMounts(network, program=shutil.which("mount.nfs", path=SYSTEM_PATH))
        return NodeMounts(limits, rclone=rclone, boot_id=boot_id, network=networks, local=directories)
    return NoMounts(why) if way is InputWay.MOUNT else CopiedInputs(why, local=directories)
