"""SEAM task output: `base` is the contract, one file per implementation; `open_log_store` picks one."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_coordinator.logstore.base import LogStore


def open_log_store(directory: Path) -> "LogStore":
    """The log store whose data lie under `directory`."""
    from windlass_coordinator.logstore.files import FileLogStore

    return FileLogStore(directory)
