"""The node's data disks over time: no work is taken while one is not as it should be, or full."""

import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.node.disks import DataDisk, DataDiskRefused, prepare_disk, what_is_wrong
from windlass_agent.spool.disk_space import disk_space
from windlass_proto.errors import Unavailable

TRY_AGAIN_S = 30.0
"""A disk that somebody mends, or that a cloud attaches late, is found."""

log = structlog.get_logger()


class DataDisks:
    def __init__(self, disks: Sequence[DataDisk]) -> None:
        self._disks = disks
        self._refused: dict[str, str] = {}
        self._try_at = 0.0

    def prepare(self, *, state: Path) -> None:
        """At the start of the agent. Raises Unavailable when `state` was to lie on one that is not there."""
        for disk in self._disks:
            self._prepare(disk)
            why = self._refused.get(disk.device)
            if why and state.absolute().is_relative_to(disk.mount_point):
                raise Unavailable(f"the state directory {state} is to be on a data disk: {why}")

    def trouble(self) -> str:
        """What is wrong with the first that is not as it should be; "" = nothing. Blocks."""
        may_try = time.monotonic() >= self._try_at
        if may_try:
            self._try_at = time.monotonic() + TRY_AGAIN_S
        for disk in self._disks:
            why = what_is_wrong(disk)
            if why and may_try:
                self._prepare(disk)
                why = self._refused.get(disk.device, "")
            if why:
                return f"data disk: {self._refused.get(disk.device, why)}"
        return ""

    def shortage(self, reserve: DiskFloor, *, was_short: bool) -> str:
        """Of space or inodes on the first that has too little."""
        for disk in self._disks:
            if not what_is_wrong(disk):
                short = reserve.shortage(disk_space(Path(disk.mount_point)), was_short=was_short)
                if short:
                    return f"{disk.mount_point}: {short}"
        return ""

    def _prepare(self, disk: DataDisk) -> None:
        try:
            done = prepare_disk(disk)
        except DataDiskRefused as problem:
            if self._refused.get(disk.device) != str(problem):
                log.error(
                    "disk.refused", device=disk.device, mount_point=disk.mount_point, reason=str(problem)
                )
            self._refused[disk.device] = str(problem)
            return
        self._refused.pop(disk.device, None)
        if done:
            log.info("disk.ready", device=disk.device, mount_point=disk.mount_point, done=done)
