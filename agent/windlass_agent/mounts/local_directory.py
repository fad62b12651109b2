"""Directories of the node itself (`file://`), for machines of one's own."""

import os
from collections.abc import Sequence
from pathlib import Path

from windlass_agent.mounts.base import BadMapping
from windlass_proto.model.storage import LocalLocation


class LocalDirectories:
    """Those that the node's owner lets tasks see."""

    def __init__(self, allowed: Sequence[Path]) -> None:
        self._allowed = [Path(os.path.realpath(path)) for path in allowed]

    def directory(self, location: LocalLocation) -> Path:
        """Without links, so that none leads out of what is allowed. Raises BadMapping."""
        path = Path(os.path.realpath(location.path))
        if not any(path.is_relative_to(allowed) for allowed in self._allowed):
            shown = ", ".join(map(str, self._allowed)) or "none"
            raise BadMapping(
                f"input {location}: is no directory that this node shows to tasks"
                f" (its setting local.directories: {shown})"
            )
        if not path.is_dir():
            raise BadMapping(f"input {location}: there is no such directory on this node")
        return path
