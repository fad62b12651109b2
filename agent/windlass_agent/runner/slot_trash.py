"""What commands left in a slot's work directory: removed off the loop, and not after each of them."""

import asyncio

import structlog

from windlass_agent.spool.slot_dir import SlotDir

TIDY_S = 1.0
"""It is removed this often at most."""

log = structlog.get_logger()


class SlotTrash:
    def __init__(self, number: int, directory: SlotDir) -> None:
        self._number, self._directory = number, directory
        self._next_at = 0.0
        self._tidying: asyncio.Future[None] | None = None
        self._left = 0

    def tidy(self) -> None:
        """Begins with it, if there is something and it is time; does not wait."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_at and (self._tidying is None or self._tidying.done()):
            self._next_at = loop.time() + TIDY_S
            if self._directory.has_trash():
                self._tidying = loop.run_in_executor(None, self._empty)

    async def tidy_up(self) -> None:
        """All of it, at the end."""
        if self._tidying:
            await asyncio.wait([self._tidying])
        if self._directory.has_trash():
            await asyncio.to_thread(self._empty)

    def _empty(self) -> None:
        left = self._directory.empty_trash()
        if left > self._left:
            log.warning("trash.left", slot=self._number, entries=left, hint="they cannot be removed")
        self._left = left
