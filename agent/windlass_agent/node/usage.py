"""How busy this machine is: told with every heartbeat."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    load1: float
    memory_available_bytes: int
    disk_free_bytes: int
    """Where the agent's state lies."""


def read_usage(state_dir: Path) -> Usage:
    return Usage(
        load1=os.getloadavg()[0],
        memory_available_bytes=psutil.virtual_memory().available,
        disk_free_bytes=psutil.disk_usage(str(state_dir)).free,
    )
