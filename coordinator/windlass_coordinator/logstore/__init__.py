"""SEAM task output: `base` is the contract, one file per implementation; `open_log_store` picks one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_coordinator.logstore.base import LogStore


def open_log_store(
    directory: Path,
    *,
    attempt_quota_bytes: int | None = None,
    on_broken: Callable[[str], None] = lambda why: None,
) -> "LogStore":
    """The log store whose data lie under `directory`. `attempt_quota_bytes`: stored of one attempt at most;
    `on_broken` is told when the disk has lost what was written, so that the process must end."""
    from windlass_coordinator.logstore.files import FileLogStore

    return FileLogStore(directory, attempt_quota_bytes=attempt_quota_bytes, on_broken=on_broken)
