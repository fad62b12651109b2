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
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import structlog

from windlass_agent.core.readoption import KEEPER_LOST
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, Lease
from windlass_agent.keeper.command import STUCK_S
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
from windlass_agent.runner.left_processes import LeftProcesses
from windlass_agent.runner.line_connection import LineConnection
from windlass_agent.runner.plan_messages import PlanMessages
from windlass_agent.runner.slot_inventory import SlotInventory, read_findings
from windlass_agent.spool.durable import JsonRecord, json_line
from windlass_agent.spool.evidence import Evidence
from windlass_agent.spool.keeper_journal import JournalContent, JournalPins, read_content
from windlass_agent.spool.keeper_records import read_exit, read_start, ref_from_json, ref_to_json
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.errors import Conflict, Unavailable
from windlass_proto.model.events import LostOnNode, PrepareFailed
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef

MAX_DEPTH = 2048
"""Plans that a slot takes; the keeper's own limit is twice that."""
HELLO_S = 30.0
"""For a keeper to answer; on an overloaded machine an interpreter may start slowly."""
DEATH_S = 0.5
"""Between the end of a keeper's connection and of its lock; if that does not come, it hung up on us only."""
EMPTY_S = 5.0
"""For the processes of a lost keeper to vanish, before other things go on without that proof."""
KILL_STUCK_S = 30.0
"""For killed processes to vanish; then the attempt is told to be stuck and the slot is not used."""
HUNG_S = 10.0
"""Beyond a command's grace, for a keeper to end it or to say that it cannot; else it hangs itself."""
GRACE_S = 30.0
"""Of a command about which only an older keeper knows."""
STUCK_LOOK_S = 1.0
"""Processes that would not vanish are killed again this often; until they are gone the slot is not used."""
TIDY_S = 1.0
"""What commands left behind is removed this often at most."""
LOOK_S = 0.003
"""While something is about to happen in another process."""

_STUCK = f"its processes could not be ended within {KILL_STUCK_S:g} s"

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
        on_keeper_lost: Callable[[int, tuple[AttemptRef, ...], LostOnNode | PrepareFailed], None],
        settings: KeeperSettings,
        evidence: Evidence | None = None,
        installed_build: Callable[[], str] | None = None,
    ) -> None:
        """A keeper is started from the files that are installed then, whichever build the agent is."""
        self.number = number
        self._evidence, self._installed_build = evidence, installed_build
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
        self._start_problem = ""
        """Why the newest keeper could not even be started."""
        self._left = LeftProcesses(number, containment)
        self._losing: tuple[AttemptRef, ...] = ()
        """Attempts of a keeper that is gone, until their processes are."""
        self._stuck_since = 0.0
        """When the keeper first said that it cannot empty its group; 0 = it did not."""
        self.is_stuck = False
        """Processes in the slot could not be ended: it is not used until they are gone."""
        self._grace_s = GRACE_S
        """Of the command that the keeper had when it was reached."""
        self._lease: Lease | None = None
        self._told_lease: Lease | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._give_up_at = 0.0
        self._tidy_at = 0.0
        self._tidying: asyncio.Future[None] | None = None
        self._left_in_trash = 0
        self._spool_limits: JsonRecord = {
            "is": "spool",
            "attempt": settings.spool_limit_bytes,
            "slot": settings.spool_slot_bytes,
        }

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

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """Its exit record will say `stopped`, unless it ended before. An unknown one is passed over.

        `grace_s` can only shorten the plan's own.
        """
        held = self._held.get(ref)
        if held is None:
            return
        message: JsonRecord = {"is": "stop", "ref": ref_to_json(ref)}
        self._tell(message if grace_s is None else message | {"grace": grace_s})
        patience_s = HUNG_S + (held.plan.kill_grace_s if held.plan else self._grace_s)
        asyncio.get_running_loop().call_later(patience_s, self._look_whether_stopped, held)

    def renew_lease(self, lease: Lease) -> None:
        """Told to keepers that have work: only they could outlive it."""
        self._lease = lease
        if self._held:
            self._tell_lease()

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """How much output may lie on this node: of one attempt, and of this slot."""
        self._spool_limits = {"is": "spool", "attempt": attempt_bytes, "slot": slot_bytes}
        if self._connection and self._phase in (KeeperPhase.LIVE, KeeperPhase.RETIRING):
            self._connection.write(json_line(self._spool_limits))

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
            raise Unavailable(self._why_no_keeper())

    async def adopt(self) -> SlotInventory:
        """May be repeated; with no effect on what runs."""
        self._directory.make()
        if self._directory.keeper_lives():
            self._call_keeper()
            await self._leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=HELLO_S + EMPTY_S + 1)
        is_alive = self._phase is KeeperPhase.LIVE
        inventory = self._read_inventory(is_alive=is_alive)
        if not is_alive:
            inventory = await self._end_the_lost(inventory)
        elif self._build != self._settings.build:
            self._enter(KeeperPhase.RETIRING)
            self._tell({"is": "shutdown", "kill": False})
        log.info("slot.adopted", slot=self.number, alive=is_alive, lost=len(inventory.lost))
        return inventory

    async def _end_the_lost(self, inventory: SlotInventory) -> SlotInventory:
        """Other slots do not wait long for processes that do not vanish; what is lost is told later then."""
        self._bury()
        await self._leave(KeeperPhase.BURIED, within_s=EMPTY_S)
        if self._phase is not KeeperPhase.BURIED or not inventory.lost:
            return inventory
        *lost, last = inventory.lost
        self._held[last] = _HeldPlan(ref=last, plan=None, is_told=True, is_started=True)
        self._losing += (last,)
        return replace(inventory, running=last, lost=tuple(lost))

    async def close(self, *, end_keeper: bool) -> None:
        """`end_keeper` False: the agent restarts; the keeper and its commands live on."""
        self._is_closing = True
        if end_keeper:
            await self._end_keeper()
        if self._tidying:
            await asyncio.wait([self._tidying])
        if self._directory.has_trash():
            await asyncio.to_thread(self._empty_trash)
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
        try:
            self._directory.make()
            groups = self._containment.slot_groups(self.number)
            build = self._installed_build() if self._installed_build else self._settings.build
            settings = replace(self._settings, build=build)
            self._pid, sock = start_keeper(self._directory, groups, settings)
        except OSError as error:
            self._on_failed_start(str(error))
            return
        self._attach(sock, {"is": "hello"})

    def _on_failed_start(self, why: str) -> None:
        """The machine has no room, no processes, or somebody has removed what is ours; the next may do."""
        self._start_problem = why
        log.error("keeper.start_failed", slot=self.number, error=why)
        refs = tuple(self._held)
        self._held.clear()
        self._outbox.clear()
        if refs:
            what = PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=self._why_no_keeper())
            self._on_keeper_lost(self.number, refs, what)

    def _why_no_keeper(self) -> str:
        words = self._start_problem or last_words(self._directory) or "it said nothing"
        return f"slot {self.number} has no keeper ({self._phase}): {words}"

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
        self._told_lease = None
        self._start_problem = ""
        self._messages = PlanMessages()
        self._connection = LineConnection(sock, on_record=self._hear, on_closed=self._on_closed)
        self._connection.write(json_line(hello) + json_line(self._spool_limits))
        self._enter(KeeperPhase.CONNECTING)
        self._after(HELLO_S, lambda: kill_keeper(self._directory, self._pid))

    def _on_answer(self, about: JsonRecord) -> None:
        """It is reached; what it does not know of what it was told was lost with an earlier connection."""
        self._pid, self._build, self._has_answered = about["pid"], about["build"], True
        self._grace_s = about.get("grace", GRACE_S)
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
        if self._held:
            self._tell_lease()
        self._flush()

    # What is told

    def _tell(self, item: _HeldPlan | JsonRecord) -> None:
        self._outbox.append(item)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _tell_lease(self) -> None:
        """Before any plan that it is about."""
        if self._connection is None or self._lease is None or self._lease is self._told_lease:
            return
        self._told_lease = self._lease
        about = {"is": "lease", "until": self._lease.until_s, "grace": self._lease.kill_grace_s}
        self._connection.write(json_line(about))

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._outbox:
            return
        if self._phase is KeeperPhase.ABSENT and not self._is_closing:
            self._start_keeper()
        if self._connection is None or self._phase not in (KeeperPhase.LIVE, KeeperPhase.RETIRING):
            return
        self._tell_lease()
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
                self._help()

    def _help(self) -> None:
        """The keeper could not empty its group; it goes on trying, and says so every few seconds."""
        now_s = asyncio.get_running_loop().time()
        if not self._stuck_since:
            self._stuck_since = now_s - STUCK_S
            log.warning("keeper.stuck", slot=self.number, hint="killed processes do not vanish")
        if now_s - self._stuck_since < KILL_STUCK_S and self._pid is not None:
            self._containment.kill_others(self.number, spare=self._pid)
        else:
            kill_keeper(self._directory, self._pid)

    def _look_whether_stopped(self, held: _HeldPlan) -> None:
        """A keeper that neither ends what it was told to end nor says why does not work any more."""
        is_reached = self._phase in (KeeperPhase.LIVE, KeeperPhase.RETIRING)
        if self._held.get(held.ref) is held and is_reached and not self._stuck_since:
            log.error("keeper.hung", slot=self.number)
            kill_keeper(self._directory, self._pid)

    def _deliver(self, record: KeeperRecord, segment: int) -> None:
        """Once each: what was read from the journal may come on the connection as well."""
        held = self._held.get(record.ref)
        if held is None:
            return
        if isinstance(record, ExitRecord):
            del self._held[record.ref]
            self._stuck_since = 0.0
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
                self._tidying = loop.run_in_executor(None, self._empty_trash)

    def _empty_trash(self) -> None:
        left = self._directory.empty_trash()
        if left > self._left_in_trash:
            log.warning("trash.left", slot=self.number, entries=left, hint="they cannot be removed")
        self._left_in_trash = left

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
        self._left.note(content.starts[ref] for ref in lost if ref in content.starts)
        self._losing = tuple(lost)
        self._give_up_at = asyncio.get_running_loop().time() + (
            EMPTY_S if self._stuck_since else KILL_STUCK_S
        )
        self._enter(KeeperPhase.BURIED)
        self._empty_group()

    def _empty_group(self) -> None:
        """Ends what the keeper left; tells that its attempts are lost when none of it can run any more."""
        if self._left.end():
            self._tell_lost(self._why_lost())
            if self.is_stuck:
                log.info("slot.usable_again", slot=self.number)
            self.is_stuck, self._stuck_since = False, 0.0
            self._enter(KeeperPhase.ABSENT)
            self._flush()
        elif asyncio.get_running_loop().time() < self._give_up_at:
            self._after(LOOK_S, self._empty_group)
        else:
            if not self.is_stuck:
                log.error("slot.stuck", slot=self.number, hint="it is not used until its processes are gone")
            self.is_stuck = True
            self._tell_lost(LostOnNode(kind=FailureKind.INFRA_KILL_STUCK, reason=_STUCK))
            self._after(STUCK_LOOK_S, self._empty_group)

    def _why_lost(self) -> LostOnNode | PrepareFailed:
        if self._stuck_since:
            return LostOnNode(kind=FailureKind.INFRA_KILL_STUCK, reason=_STUCK)
        if self._pid is not None and not self._has_answered:
            return PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=self._why_no_keeper())
        return LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason=KEEPER_LOST)

    def _tell_lost(self, what: LostOnNode | PrepareFailed) -> None:
        lost, self._losing = self._losing, ()
        for ref in lost:
            del self._held[ref]
        if lost:
            words = last_words(self._directory)
            log.warning("keeper.lost", slot=self.number, attempts=len(lost), why=what.kind, last_words=words)
            self._on_keeper_lost(self.number, lost, what)

    def _read_inventory(self, *, is_alive: bool) -> SlotInventory:
        content = read_content(self._directory.read_journal())
        if content.damaged:
            log.warning("journal.damaged", slot=self.number, lines=content.damaged)
            if self._evidence is not None:
                self._directory.keep_journal(self._evidence)
        found = read_findings(content, held=self._held, boot_id=boot_id())
        for ref, segment in found.segments.items():
            self._pins.pin(ref, segment)
        self._left.note(found.strays)
        return SlotInventory(
            running=next((held.ref for held in self._held.values() if held.is_started), None),
            queued=tuple(held.ref for held in self._held.values() if not held.is_started),
            ended=found.ended,
            lost=found.lost,
            alive=is_alive,
            rebooted=found.rebooted,
        )
