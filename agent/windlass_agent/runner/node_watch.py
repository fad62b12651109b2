"""Looks every second whether the node can take more work, and how much output may lie on it (P14)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.core.intake import Intake, Obstacle
from windlass_agent.node.data_disks import DataDisks
from windlass_agent.node.usage import Usage, read_usage
from windlass_agent.runner.spool_quota import SpoolQuota
from windlass_agent.spool.disk_space import disk_space

_LOOK_EVERY_S = 1.0
_BACKLOG_IS_BACK = 0.8
"""Work is taken again below this share of the limit, so that it does not come and go."""

log = structlog.get_logger()


class NodeWatch:
    def __init__(
        self,
        intake: Intake,
        quota: SpoolQuota,
        *,
        state_dir: Path,
        disks: DataDisks,
        reserve: DiskFloor,
        ended: Callable[[], int],
        ended_most: int,
        try_state: Callable[[], None],
        on_open: Callable[[], None],
    ) -> None:
        """`ended` says how many attempts wait for the coordinator; `try_state` raises OSError when no
        assignment can be written down; `on_open` is called when work can be taken again."""
        self._intake, self._quota = intake, quota
        self._state_dir, self._disks, self._reserve = state_dir, disks, reserve
        self._ended, self._ended_most = ended, ended_most
        self._try_state, self._on_open = try_state, on_open
        self.usage = Usage(load1=0.0, memory_available_bytes=0, disk_free_bytes=0)
        """As of the last look."""

    async def serve(self) -> None:
        while True:
            self._quota.share_out()
            await self._look()
            # Not in the heartbeat: that must not wait for a disk that hangs.
            with suppress(OSError):
                self.usage = await asyncio.to_thread(read_usage, self._state_dir)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        was_open = self._intake.is_open
        self._note(Obstacle.DATA_DISK, await asyncio.to_thread(self._disks.trouble))
        self._note(Obstacle.DISK, await asyncio.to_thread(self._disk_shortage))
        if self._intake.is_hindered_by(Obstacle.STATE):
            self._note(Obstacle.STATE, self._state_trouble())
        self._note(Obstacle.BACKLOG, self._backlog())
        if self._intake.is_open and not was_open:
            self._on_open()

    def _disk_shortage(self) -> str:
        try:
            space = disk_space(self._state_dir)
        except OSError as problem:
            return f"the state directory cannot be looked at: {problem}"
        was_short = self._intake.is_hindered_by(Obstacle.DISK)
        short = self._reserve.shortage(space, was_short=was_short)
        return short or self._disks.shortage(self._reserve, was_short=was_short)

    def _state_trouble(self) -> str:
        try:
            self._try_state()
        except OSError as problem:
            return f"assignments cannot be written down: {problem}"
        return ""

    def _backlog(self) -> str:
        limit = self._ended_most
        if self._intake.is_hindered_by(Obstacle.BACKLOG):
            limit = int(limit * _BACKLOG_IS_BACK)
        ended = self._ended()
        return f"{ended} ended attempts wait for the coordinator" if ended > limit else ""

    def _note(self, obstacle: Obstacle, why: str) -> None:
        """People hear of each obstacle once, and once of its end."""
        if why:
            if self._intake.close(obstacle, why):
                log.warning("intake.closed", obstacle=str(obstacle), reason=why)
        elif self._intake.clear(obstacle):
            log.info("intake.cleared", obstacle=str(obstacle))
