"""How much room the state directory's file system has, and whether it can be written at all."""

import os
from pathlib import Path

from windlass_agent.core.disk_pressure import DiskSpace

_TRIAL = b"may be written\n"


def disk_space(directory: Path) -> DiskSpace:
    """For the agent's user. Raises OSError."""
    about = os.statvfs(directory)
    return DiskSpace(
        free_bytes=about.f_bavail * about.f_frsize,
        total_bytes=about.f_blocks * about.f_frsize,
        free_inodes=about.f_favail,
        total_inodes=about.f_files,
    )


def try_to_write(directory: Path) -> None:
    """Raises OSError when nothing can be written there."""
    path = directory / "trial"
    try:
        path.write_bytes(_TRIAL)
    finally:
        path.unlink(missing_ok=True)
