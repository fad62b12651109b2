"""The way to the keeper of one slot: it is started or called, it answers, and one day it is gone.

What is said on the way is the business of `keeper_client`; how a keeper's process is started and ended is in
`keeper_process`.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import structlog

from windlass_agent.runner.cgroups import SlotGroups
from windlass_agent.runner.keeper_process import (
    KeeperSettings,
    connect_keeper,
    kill_keeper,
    last_words,
    reap,
    start_keeper,
)
from windlass_agent.runner.line_connection import LineConnection
from windlass_agent.spool.durable import JsonRecord, json_line
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.errors import Unavailable

HELLO_S = 30.0
"""For a keeper to answer; on an overloaded machine an interpreter may start slowly."""
DEATH_S = 0.5
"""Between the end of a keeper's connection and of its lock; if that does not come, it hung up on us only."""
LOOK_S = 0.003
"""While something is about to happen in another process."""

log = structlog.get_logger()


class KeeperPhase(StrEnum):
    """What a slot's keeper is doing, as the agent sees it."""

    ABSENT = "ABSENT"
    CONNECTING = "CONNECTING"
    """Started or called; it has not answered yet."""
    LIVE = "LIVE"
    RETIRING = "RETIRING"
    """Ends when it is idle; new plans wait for its successor."""
    BURIED = "BURIED"
    """It is gone; what it left running is being ended."""
    CLOSED = "CLOSED"


class KeeperLink:
    """Tells what the keeper says, and when its process has ended."""

    def __init__(
        self,
        number: int,
        directory: SlotDir,
        *,
        on_connect: Callable[[], bytes],
        on_message: Callable[[JsonRecord], None],
        on_gone: Callable[[], None],
    ) -> None:
        """`on_connect` gives what a keeper is told right after the greeting."""
        self._number, self._directory = number, directory
        self._on_connect, self._on_message, self._on_gone = on_connect, on_message, on_gone
        self._connection: LineConnection | None = None
        self._phase = KeeperPhase.ABSENT
        self._phase_changed = asyncio.Event()
        self._start_problem = ""
        """Why the newest keeper could not even be started."""
        self._timer: asyncio.TimerHandle | None = None
        self._give_up_at = 0.0
        self.pid: int | None = None
        self.build = ""
        """Of the keeper that answered last."""
        self.has_answered = False

    @property
    def phase(self) -> KeeperPhase:
        return self._phase

    @property
    def is_connected(self) -> bool:
        """It may not have answered yet."""
        return self._connection is not None

    @property
    def is_up(self) -> bool:
        return self.is_connected and self._phase in (KeeperPhase.LIVE, KeeperPhase.RETIRING)

    def start(self, groups: SlotGroups, settings: KeeperSettings) -> None:
        """Raises OSError."""
        self.pid, sock = start_keeper(self._directory, groups, settings)
        self._attach(sock, {"is": "hello"})

    def note_failed_start(self, why: str) -> None:
        self._start_problem = why
        log.error("keeper.start_failed", slot=self._number, error=why)

    def call(self) -> None:
        """A living one that is not connected."""
        try:
            sock = connect_keeper(self._directory)
        except Unavailable as error:
            log.warning("keeper.unreachable", slot=self._number, error=str(error))
            kill_keeper(self._directory, None)
            self._expect_death()
            self.after(LOOK_S, self._await_death)
            return
        self._attach(sock, {"is": "hello", "nonce": self._directory.nonce()})

    def answered(self, *, pid: int, build: str) -> None:
        self.pid, self.build, self.has_answered = pid, build, True
        if self._timer:
            self._timer.cancel()

    def write(self, data: bytes) -> None:
        """Nobody hears it while there is no connection."""
        if self._connection is not None:
            self._connection.write(data)

    def kill(self) -> None:
        kill_keeper(self._directory, self.pid)

    def reap(self) -> None:
        if self.pid is not None:
            reap(self.pid)

    def close(self) -> None:
        """The keeper lives on."""
        if self._timer:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.enter(KeeperPhase.CLOSED)

    def why_absent(self) -> str:
        words = self._start_problem or last_words(self._directory) or "it said nothing"
        return f"slot {self._number} has no keeper ({self._phase}): {words}"

    def enter(self, phase: KeeperPhase) -> None:
        self._phase = phase
        self._phase_changed.set()
        self._phase_changed = asyncio.Event()

    async def leave(self, *phases: KeeperPhase, within_s: float) -> None:
        """Waits for another phase than these; the caller looks which one it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._phase in phases:
                    await self._phase_changed.wait()

    async def come_up(self, *, spare_s: float) -> None:
        """Waits until a keeper has answered or will not; `spare_s` more than it takes to find out."""
        await self.leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=HELLO_S + spare_s)

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """One thing at a time is waited for: it replaces what was to be done before."""
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, callback)

    def _attach(self, sock: socket.socket, hello: JsonRecord) -> None:
        self.has_answered = False
        self._start_problem = ""
        self._connection = LineConnection(sock, on_record=self._on_message, on_closed=self._on_closed)
        self._connection.write(json_line(hello) + self._on_connect())
        self.enter(KeeperPhase.CONNECTING)
        self.after(HELLO_S, self.kill)

    def _on_closed(self) -> None:
        self._connection = None
        self._expect_death()
        self._await_death()

    def _expect_death(self) -> None:
        self.enter(KeeperPhase.BURIED)
        self._give_up_at = asyncio.get_running_loop().time() + DEATH_S

    def _await_death(self) -> None:
        """The lock ends with the process, a little after its connections. A keeper may also just hang up."""
        if not self._directory.keeper_lives():
            self._on_gone()
        elif asyncio.get_running_loop().time() < self._give_up_at:
            self.after(LOOK_S, self._await_death)
        else:
            self.call()
