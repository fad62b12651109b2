"""Inputs on a node that cannot mount, such as a laptop: objects are copied down, local directories are
links.
"""

import os
import shutil
from pathlib import Path
from threading import Event

import structlog

from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts.base import BadMapping, MountRequest, StorageOpener, StorageUnavailable
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.names import rename_tree
from windlass_proto.model.storage import LocalLocation, NetworkLocation, ObjectLocation

log = structlog.get_logger()


class CopiedInputs:
    """Implements InputMounter."""

    def __init__(self, why: str, *, local: LocalDirectories) -> None:
        """`why`: what keeps the node from mounting."""
        self._why, self._local = why, local

    def mount(self, request: MountRequest, storages: StorageOpener, *, cancelled: Event) -> None:
        for one in request.inputs:
            _refuse_links(one, request.root)
            match one.location:
                case ObjectLocation() as location:
                    log.info("input.copied", input=str(location), reason=self._why)
                    storage = storages.for_scheme(location.scheme, storage=one.mapping.storage)
                    storage.fetch_directory(location, one.directory, cancelled=cancelled)
                    if request.codec:
                        rename_tree(one.directory, request.codec)
                case NetworkLocation():
                    raise StorageUnavailable(f"{one.what}: this node cannot mount: {self._why}")
                case LocalLocation() as location:
                    _link(one, self._local.directory(location))

    def verdict(self, root: Path) -> str:
        return ""

    def look_after(self, root: Path) -> None:
        """A copy does not hang."""

    def release(self, root: Path) -> None:
        """Nothing is mounted; what was copied goes with the attempt's directory."""


class NoMounts:
    """Implements InputMounter where inputs must be mounted and cannot be."""

    def __init__(self, why: str) -> None:
        self._why = why

    def mount(self, request: MountRequest, storages: StorageOpener, *, cancelled: Event) -> None:
        raise StorageUnavailable(f"inputs are to be mounted here (work.inputs is mount): {self._why}")

    def verdict(self, root: Path) -> str:
        return ""

    def look_after(self, root: Path) -> None:
        """There is nothing."""

    def release(self, root: Path) -> None:
        """There is nothing."""


def _refuse_links(one: InputMount, root: Path) -> None:
    """A package may have put one in the way, and it would lead what is copied elsewhere."""
    place = root
    for part in one.directory.relative_to(root).parts:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise BadMapping(
                f"{one.what}: its place {part} is no directory, but something that the package put there"
            )


def _link(one: InputMount, directory: Path) -> None:
    if one.directory.exists():
        shutil.rmtree(one.directory)
    os.symlink(directory, one.directory)
