"""The agent's end of a keeper: one `Slot` hands plans over and hears what became of them.

Nothing here waits for the keeper in the event loop: plans of one loop turn go out in one write, records come
in by the read. Whatever the keeper says stands in its journal too; after a lost connection (the agent's end,
or a keeper that was killed) the journal tells what was missed. What the keeper does is in
`windlass_agent.keeper`, what its records mean in `spool/keeper_records.py`.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, StartRecord
from windlass_agent.runner.cgroups import Containment
from windlass_agent.runner.keeper_process import (
    KeeperSettings,
    boot_id,
    connect_keeper,
    kill_keeper,
    last_words,
    reap,
    start_keeper,
)
from windlass_agent.runner.line_connection import LineConnection
from windlass_agent.runner.plan_messages import PlanMessages
from windlass_agent.runner.sessions import kill_session, session_members
from windlass_agent.spool.durable import JsonRecord, json_line
from windlass_agent.spool.keeper_journal import JournalContent, JournalPins, read_content
from windlass_agent.spool.keeper_records import read_exit, read_start, ref_from_json, ref_to_json
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.errors import Conflict, Unavailable
from windlass_proto.model.ids import AttemptRef

MAX_DEPTH = 2048
"""Plans that a slot takes; the keeper's own limit is twice that."""
HELLO_S = 15.0
"""For a keeper to answer; on an overloaded machine an interpreter may start slowly."""
DEATH_S = 0.5
"""Between the end of a keeper's connection and of its lock; if that does not come, it hung up on us only."""
EMPTY_S = 5.0
"""For the processes of a lost keeper to vanish, before its attempts are given up without that proof."""
STUCK_LOOK_S = 1.0
"""Processes that would not vanish are killed again this often; until they are gone the slot is not used."""
TIDY_S = 1.0
"""What commands left behind is removed this often at most."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInventory:
    """What an earlier life of the agent left in a slot."""

    running: AttemptRef | None = None
    queued: tuple[AttemptRef, ...] = ()
    ended: tuple[ExitRecord, ...] = ()
    """All that the journal still holds; some may have been forgotten before."""
    lost: tuple[AttemptRef, ...] = ()
    """Begun, and the keeper ended without their exit record."""
    alive: bool = False
    rebooted: bool = False
    """The lost ones were lost with the machine, not by the keeper's fault."""


@dataclass(slots=True, kw_only=True)
class _HeldPlan:
    ref: AttemptRef
    plan: CommandPlan | None
    """None = handed over by an earlier life of the agent."""
    share: str | None = None
    is_told: bool = False
    is_started: bool = False


class Slot:
    """One slot of the node and its keeper (started lazily by exec, re-connected after an agent restart)."""

    def __init__(
        self,
        number: int,
        *,
        directory: Path,
        containment: Containment,
        on_record: Callable[[KeeperRecord], None],
        on_keeper_lost: Callable[[int, tuple[AttemptRef, ...]], None],
        settings: KeeperSettings,
    ) -> None:
        self.number = number
        self._directory = SlotDir(directory)
        self._containment = containment
        self._on_record = on_record
        self._on_keeper_lost = on_keeper_lost
        self._settings = settings
        self._phase = KeeperPhase.ABSENT
        self._phase_changed = asyncio.Event()
        self._held: dict[AttemptRef, _HeldPlan] = {}
        self._outbox: list[_HeldPlan | JsonRecord] = []
        """Plans and other messages that the keeper has not been told, in order."""
        self._connection: LineConnection | None = None
        self._messages = PlanMessages()
        self._pins = JournalPins(self._directory.delete_segment)
        self._pid: int | None = None
        self._build = ""
        self._is_flush_due = False
        self._is_closing = False
        self._has_answered = False
        self._strays: list[StartRecord] = []
        """Commands of a dead keeper, to be found by their session where there is no group."""
        self._timer: asyncio.TimerHandle | None = None
        self._give_up_at = 0.0
        self._tidy_at = 0.0
        self._tidying: asyncio.Future[None] | None = None

    @property
    def depth(self) -> int:
        """Plans handed over and not ended."""
        return len(self._held)

    @property
    def idle(self) -> bool:
        return not self._held

    @property
    def phase(self) -> KeeperPhase:
        return self._phase

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        """Never blocks. Plans of one `share` (such as a task) have most in common, which is sent once."""
        if plan.ref in self._held:
            raise Conflict(f"slot {self.number} has {plan.ref} already")
        if len(self._held) >= MAX_DEPTH or self._is_closing:
            raise Unavailable(f"slot {self.number} takes no more plans; it has {len(self._held)}")
        held = _HeldPlan(ref=plan.ref, plan=plan, share=share)
        self._held[plan.ref] = held
        self._tell(held)

    def stop(self, ref: AttemptRef) -> None:
        """Its exit record will say `stopped`, unless it ended before. An unknown one is passed over."""
        if ref in self._held:
            self._tell({"is": "stop", "ref": ref_to_json(ref)})

    def forget(self, ref: AttemptRef) -> None:
        """Its records are not needed any more."""
        self._pins.forget(ref)

    async def start(self) -> None:
        """Raises Unavailable when the keeper does not come up in time."""
        await self._leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=EMPTY_S + 1)
        if self._phase is KeeperPhase.ABSENT and not self._is_closing:
            self._start_keeper()
        await self._leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=HELLO_S + 1)
        if self._phase not in (KeeperPhase.LIVE, KeeperPhase.RETIRING):
            words = last_words(self._directory) or "it said nothing"
            raise Unavailable(f"slot {self.number} has no keeper ({self._phase}): {words}")

    async def adopt(self) -> SlotInventory:
        """May be repeated; with no effect on what runs."""
        self._directory.make()
        if self._directory.keeper_lives():
            self._call_keeper()
            await self._leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=HELLO_S + EMPTY_S + 1)
        is_alive = self._phase is KeeperPhase.LIVE
        inventory = self._read_inventory(is_alive=is_alive)
        if not is_alive:
            self._bury()
            await self._leave(KeeperPhase.BURIED, within_s=EMPTY_S + 1)
        elif self._build != self._settings.build:
            self._enter(KeeperPhase.RETIRING)
            self._tell({"is": "shutdown", "kill": False})
        log.info("slot.adopted", slot=self.number, alive=is_alive, lost=len(inventory.lost))
        return inventory

    async def close(self, *, end_keeper: bool) -> None:
        """`end_keeper` False: the agent restarts; the keeper and its commands live on."""
        self._is_closing = True
        if end_keeper:
            await self._end_keeper()
        if self._tidying:
            await asyncio.wait([self._tidying])
        if self._directory.has_trash():
            await asyncio.to_thread(self._directory.empty_trash)
        if self._timer:
            self._timer.cancel()
        if self._connection:
            self._flush()
            self._connection.close()
            self._connection = None
        self._enter(KeeperPhase.CLOSED)
        if end_keeper:
            self._containment.remove(self.number)

    async def _end_keeper(self) -> None:
        plans = [held.plan for held in self._held.values() if held.plan]
        patience_s = (
            max((plan.kill_grace_s for plan in plans), default=30.0) + self._settings.drain_s + EMPTY_S
        )
        connected = (KeeperPhase.CONNECTING, KeeperPhase.LIVE, KeeperPhase.RETIRING)
        if self._phase in connected:
            self._tell({"is": "shutdown", "kill": True})
            await self._leave(*connected, within_s=patience_s)
        if self._phase in connected:
            kill_keeper(self._directory, self._pid)
        await self._leave(*connected, KeeperPhase.BURIED, within_s=EMPTY_S + 1)

    # Phases

    def _enter(self, phase: KeeperPhase) -> None:
        self._phase = phase
        self._phase_changed.set()
        self._phase_changed = asyncio.Event()

    async def _leave(self, *phases: KeeperPhase, within_s: float) -> None:
        """Waits for another phase than these; the caller looks which one it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._phase in phases:
                    await self._phase_changed.wait()

    def _after(self, delay_s: float, callback: Callable[[], None]) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, callback)

    def _start_keeper(self) -> None:
        self._directory.make()
        groups = self._containment.slot_groups(self.number)
        self._pid, sock = start_keeper(self._directory, groups, self._settings)
        self._attach(sock, {"is": "hello"})

    def _call_keeper(self) -> None:
        """A living one that is not connected."""
        try:
            sock = connect_keeper(self._directory)
        except Unavailable as error:
            log.warning("keeper.unreachable", slot=self.number, error=str(error))
            kill_keeper(self._directory, None)
            self._enter(KeeperPhase.BURIED)
            self._give_up_at = asyncio.get_running_loop().time() + DEATH_S
            self._after(LOOK_S, self._await_death)
            return
        self._attach(sock, {"is": "hello", "nonce": self._directory.nonce()})

    def _attach(self, sock: socket.socket, hello: JsonRecord) -> None:
        self._has_answered = False
        self._messages = PlanMessages()
        self._connection = LineConnection(sock, on_record=self._hear, on_closed=self._on_closed)
        self._connection.write(json_line(hello))
        self._enter(KeeperPhase.CONNECTING)
        self._after(HELLO_S, lambda: kill_keeper(self._directory, self._pid))

    def _on_answer(self, about: JsonRecord) -> None:
        """It is reached; what it does not know of what it was told was lost with an earlier connection."""
        self._pid, self._build, self._has_answered = about["pid"], about["build"], True
        if self._timer:
            self._timer.cancel()
        running = ref_from_json(about["running"]) if about["running"] else None
        known = {ref_from_json(columns) for columns in about["queued"]} | ({running} if running else set())
        for ref in known:
            self._held.setdefault(ref, _HeldPlan(ref=ref, plan=None)).is_told = True
        self._catch_up(read_content(self._directory.read_journal()) if self._held else JournalContent())
        if running in self._held:
            self._held[running].is_started = True
        missed = [held for held in self._held.values() if held.is_told and held.ref not in known]
        for held in missed:
            held.is_told = False
        self._outbox[:0] = missed
        self._enter(KeeperPhase.LIVE)
        self._flush()

    # What is told

    def _tell(self, item: _HeldPlan | JsonRecord) -> None:
        self._outbox.append(item)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._outbox:
            return
        if self._phase is KeeperPhase.ABSENT and not self._is_closing:
            self._start_keeper()
        if self._connection is None or self._phase not in (KeeperPhase.LIVE, KeeperPhase.RETIRING):
            return
        lines: list[bytes] = []
        later: list[_HeldPlan | JsonRecord] = []
        for item in self._outbox:
            if isinstance(item, dict):
                lines.append(json_line(item))
            elif self._phase is KeeperPhase.RETIRING or item.plan is None:
                later.append(item)
            else:
                item.is_told = True
                lines += map(json_line, self._messages.messages(item.plan, item.share))
        self._outbox = later
        self._connection.write(b"".join(lines))

    # What is heard

    def _hear(self, record: JsonRecord) -> None:
        match record["is"]:
            case "start":
                ref = ref_from_json(record["ref"])
                self._deliver(read_start(record, ref), record["segment"])
            case "exit":
                ref = ref_from_json(record["ref"])
                self._deliver(read_exit(record, ref), record["segment"])
            case "keeper":
                self._on_answer(record)
            case "stuck":
                log.error("keeper.stuck", slot=self.number, attempt=record["ref"])
                kill_keeper(self._directory, self._pid)

    def _deliver(self, record: KeeperRecord, segment: int) -> None:
        """Once each: what was read from the journal may come on the connection as well."""
        held = self._held.get(record.ref)
        if held is None:
            return
        if isinstance(record, ExitRecord):
            del self._held[record.ref]
            self._pins.pin(record.ref, segment)
            self._tidy()
        elif held.is_started:
            return
        held.is_started = True
        self._on_record(record)

    def _catch_up(self, content: JournalContent) -> None:
        """Records that were written and not received."""
        for ref in [ref for ref in self._held if ref in content.segment_of]:
            for record in (content.starts.get(ref), content.ends.get(ref)):
                if record:
                    self._deliver(record, content.segment_of[ref].number)

    def _tidy(self) -> None:
        """What commands left in the work directory, removed off the loop and not after each of them."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._tidy_at and (self._tidying is None or self._tidying.done()):
            self._tidy_at = loop.time() + TIDY_S
            if self._directory.has_trash():
                self._tidying = loop.run_in_executor(None, self._directory.empty_trash)

    # When the keeper is gone

    def _on_closed(self) -> None:
        self._connection = None
        self._enter(KeeperPhase.BURIED)
        self._give_up_at = asyncio.get_running_loop().time() + DEATH_S
        self._await_death()

    def _await_death(self) -> None:
        """The lock ends with the process, a little after its connections. A keeper may also just hang up."""
        if not self._directory.keeper_lives():
            self._bury()
        elif asyncio.get_running_loop().time() < self._give_up_at:
            self._after(LOOK_S, self._await_death)
        else:
            self._call_keeper()

    def _bury(self) -> None:
        if self._pid is not None:
            reap(self._pid)
        content = read_content(self._directory.read_journal())
        self._catch_up(content)
        # Told or begun. If it never answered, the next one will not either: all are given back.
        lost = [held.ref for held in self._held.values() if held.is_told or not self._has_answered]
        self._outbox = [item for item in self._outbox if isinstance(item, _HeldPlan) and item.ref not in lost]
        for ref in lost:
            if ref in content.segment_of:
                self._pins.pin(ref, content.segment_of[ref].number)
        self._strays += [content.starts[ref] for ref in lost if ref in content.starts]
        self._give_up_at = asyncio.get_running_loop().time() + EMPTY_S
        self._enter(KeeperPhase.BURIED)
        self._empty_group(tuple(lost))

    def _empty_group(self, lost: tuple[AttemptRef, ...]) -> None:
        """Ends what the keeper left; tells that its attempts are lost when none of it can run any more."""
        is_empty = self._containment.is_empty(self.number)
        is_empty &= not any(session_members(stray.pid, stray.start_ticks) for stray in self._strays)
        is_late = asyncio.get_running_loop().time() >= self._give_up_at
        if not is_empty:
            self._containment.kill_group(self.number)
            for stray in self._strays:
                kill_session(stray.pid, stray.start_ticks)
            if not is_late:
                self._after(LOOK_S, lambda: self._empty_group(lost))
                return
            log.error("slot.stuck", slot=self.number, hint="processes of an ended command cannot be killed")
            self._after(STUCK_LOOK_S, lambda: self._empty_group(()))
        for ref in lost:
            del self._held[ref]
        if lost:
            words = last_words(self._directory)
            log.warning("keeper.lost", slot=self.number, attempts=len(lost), last_words=words)
            self._on_keeper_lost(self.number, lost)
        if is_empty:
            self._strays.clear()
            self._enter(KeeperPhase.ABSENT)
            self._flush()

    def _read_inventory(self, *, is_alive: bool) -> SlotInventory:
        """Without what a living keeper still has: that is heard from it."""
        content = read_content(self._directory.read_journal())
        if content.damaged:
            log.warning("journal.damaged", slot=self.number, lines=content.damaged)
        boot = boot_id()
        old = {ref: segment for ref, segment in content.segment_of.items() if ref not in self._held}
        for ref, segment in old.items():
            self._pins.pin(ref, segment.number)
        lost = tuple(ref for ref in old if ref not in content.ends)
        rebooted = any(old[ref].boot_id not in ("", boot) for ref in lost)
        if not rebooted:
            self._strays = [content.starts[ref] for ref in lost if ref in content.starts]
        return SlotInventory(
            running=next((held.ref for held in self._held.values() if held.is_started), None),
            queued=tuple(held.ref for held in self._held.values() if not held.is_started),
            ended=tuple(content.ends[ref] for ref in old if ref in content.ends),
            lost=lost,
            alive=is_alive,
            rebooted=rebooted,
        )
