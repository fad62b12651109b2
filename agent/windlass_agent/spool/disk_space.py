"""How much room the state directory's file system has."""

import os
from pathlib import Path

from windlass_agent.core.disk_pressure import DiskSpace


def disk_space(directory: Path) -> DiskSpace:
    """For the agent's user. Raises OSError."""
    about = os.statvfs(directory)
    return DiskSpace(
        free_bytes=about.f_bavail * about.f_frsize,
        total_bytes=about.f_blocks * about.f_frsize,
        free_inodes=about.f_favail,
        total_inodes=about.f_files,
    )
