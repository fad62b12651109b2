"""The agent's end of a keeper: one `Slot` hands plans over and hears what became of them.

Nothing here waits for the keeper in the event loop: plans of one loop turn go out in one write, records come
in by the read. Whatever the keeper says stands in its journal too; after a lost connection (the agent's end,
or a keeper that was killed) the journal tells what was missed. How a keeper is started
and reached is in `keeper_link`, what it does in `windlass_agent.keeper`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from windlass_agent.core.readoption import KEEPER_LOST
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, Lease
from windlass_agent.keeper.command import STUCK_S
from windlass_agent.runner.cgroups import Containment
from windlass_agent.runner.held_plans import HeldPlan, HeldPlans
from windlass_agent.runner.keeper_link import LOOK_S, KeeperLink, KeeperPhase
from windlass_agent.runner.keeper_process import KeeperSettings, boot_id, last_words
from windlass_agent.runner.left_processes import LeftProcesses
from windlass_agent.runner.slot_inventory import SlotInventory, read_findings
from windlass_agent.runner.slot_trash import SlotTrash
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

_STUCK = f"its processes could not be ended within {KILL_STUCK_S:g} s"

log = structlog.get_logger()


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
        self._plans = HeldPlans()
        self._link = KeeperLink(
            number, self._directory, on_connect=self._greet, on_message=self._hear, on_gone=self._bury
        )
        self._pins = JournalPins(self._directory.delete_segment)
        self._is_flush_due = self._is_closing = False
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
        self._give_up_at = 0.0
        self._trash = SlotTrash(number, self._directory)
        self._spool_limits: JsonRecord = {
            "is": "spool",
            "attempt": settings.spool_limit_bytes,
            "slot": settings.spool_slot_bytes,
        }

    @property
    def depth(self) -> int:
        """Plans handed over and not ended."""
        return len(self._plans)

    @property
    def idle(self) -> bool:
        return not self._plans

    @property
    def phase(self) -> KeeperPhase:
        return self._link.phase

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        """Never blocks. Plans of one `share` (such as a task) have most in common, which is sent once."""
        if plan.ref in self._plans:
            raise Conflict(f"slot {self.number} has {plan.ref} already")
        if len(self._plans) >= MAX_DEPTH or self._is_closing:
            raise Unavailable(f"slot {self.number} takes no more plans; it has {len(self._plans)}")
        self._plans.put(plan, share)
        self._flush_soon()

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """Its exit record will say `stopped`, unless it ended before. An unknown one is passed over.

        `grace_s` can only shorten the plan's own.
        """
        held = self._plans.get(ref)
        if held is None:
            return
        message: JsonRecord = {"is": "stop", "ref": ref_to_json(ref)}
        self._tell(message if grace_s is None else message | {"grace": grace_s})
        patience_s = HUNG_S + (held.plan.kill_grace_s if held.plan else self._grace_s)
        asyncio.get_running_loop().call_later(patience_s, self._look_whether_stopped, held)

    def renew_lease(self, lease: Lease) -> None:
        """Told to keepers that have work: only they could outlive it."""
        self._lease = lease
        if self._plans:
            self._tell_lease()

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """How much output may lie on this node: of one attempt, and of this slot."""
        self._spool_limits = {"is": "spool", "attempt": attempt_bytes, "slot": slot_bytes}
        if self._link.is_up:
            self._link.write(json_line(self._spool_limits))

    def forget(self, ref: AttemptRef) -> None:
        """Its records are not needed any more."""
        self._pins.forget(ref)

    async def start(self) -> None:
        """Raises Unavailable when the keeper does not come up in time."""
        link = self._link
        await link.leave(KeeperPhase.CONNECTING, KeeperPhase.BURIED, within_s=EMPTY_S + 1)
        if link.phase is KeeperPhase.ABSENT and not self._is_closing:
            self._start_keeper()
        await link.come_up(spare_s=1)
        if link.phase not in (KeeperPhase.LIVE, KeeperPhase.RETIRING):
            raise Unavailable(link.why_absent())

    async def adopt(self) -> SlotInventory:
        """May be repeated; with no effect on what runs."""
        self._directory.make()
        if self._directory.keeper_lives():
            self._link.call()
            await self._link.come_up(spare_s=EMPTY_S + 1)
        is_alive = self._link.phase is KeeperPhase.LIVE
        inventory = self._read_inventory(is_alive=is_alive)
        if not is_alive:
            inventory = await self._end_the_lost(inventory)
        elif self._link.build != self._settings.build:
            self._link.enter(KeeperPhase.RETIRING)
            self._tell({"is": "shutdown", "kill": False})
        log.info("slot.adopted", slot=self.number, alive=is_alive, lost=len(inventory.lost))
        return inventory

    async def _end_the_lost(self, inventory: SlotInventory) -> SlotInventory:
        """Other slots do not wait long for processes that do not vanish; what is lost is told later then."""
        self._bury()
        await self._link.leave(KeeperPhase.BURIED, within_s=EMPTY_S)
        if self._link.phase is not KeeperPhase.BURIED or not inventory.lost:
            return inventory
        *lost, last = inventory.lost
        self._plans.put_begun(last)
        self._losing += (last,)
        return replace(inventory, running=last, lost=tuple(lost))

    async def close(self, *, end_keeper: bool) -> None:
        """`end_keeper` False: the agent restarts; the keeper and its commands live on."""
        self._is_closing = True
        if end_keeper:
            await self._end_keeper()
        await self._trash.tidy_up()
        if self._link.is_connected:
            self._flush()
        self._link.close()
        if end_keeper:
            self._containment.remove(self.number)

    async def _end_keeper(self) -> None:
        link, grace_s = self._link, self._plans.longest_grace_s
        patience_s = (GRACE_S if grace_s is None else grace_s) + self._settings.drain_s + EMPTY_S
        connected = (KeeperPhase.CONNECTING, KeeperPhase.LIVE, KeeperPhase.RETIRING)
        if link.phase in connected:
            self._tell({"is": "shutdown", "kill": True})
            await link.leave(*connected, within_s=patience_s)
        if link.phase in connected:
            link.kill()
        await link.leave(*connected, KeeperPhase.BURIED, within_s=EMPTY_S + 1)

    # A keeper comes

    def _start_keeper(self) -> None:
        try:
            self._directory.make()
            groups = self._containment.slot_groups(self.number)
            build = self._installed_build() if self._installed_build else self._settings.build
            self._link.start(groups, replace(self._settings, build=build))
        except OSError as error:
            self._on_failed_start(str(error))

    def _on_failed_start(self, why: str) -> None:
        """The machine has no room, no processes, or somebody has removed what is ours; the next may do."""
        self._link.note_failed_start(why)
        refs = self._plans.drop_all()
        if refs:
            what = PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=self._link.why_absent())
            self._on_keeper_lost(self.number, refs, what)

    def _greet(self) -> bytes:
        """Nothing has been said yet on a new connection."""
        self._told_lease = None
        self._plans.on_connect()
        return json_line(self._spool_limits)

    def _on_answer(self, about: JsonRecord) -> None:
        """It is reached; what it does not know of what it was told was lost with an earlier connection."""
        self._link.answered(pid=about["pid"], build=about["build"])
        self._grace_s = about.get("grace", GRACE_S)
        running = ref_from_json(about["running"]) if about["running"] else None
        known = {ref_from_json(columns) for columns in about["queued"]} | ({running} if running else set())
        self._plans.know(known)
        self._catch_up(read_content(self._directory.read_journal()) if self._plans else JournalContent())
        self._plans.note_begun(running)
        self._plans.tell_again(known)
        self._link.enter(KeeperPhase.LIVE)
        if self._plans:
            self._tell_lease()
        self._flush()

    # What is told

    def _tell(self, message: JsonRecord) -> None:
        self._plans.say(message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _tell_lease(self) -> None:
        """Before any plan that it is about."""
        if not self._link.is_connected or self._lease is None or self._lease is self._told_lease:
            return
        self._told_lease = self._lease
        about = {"is": "lease", "until": self._lease.until_s, "grace": self._lease.kill_grace_s}
        self._link.write(json_line(about))

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._plans.has_untold:
            return
        if self._link.phase is KeeperPhase.ABSENT and not self._is_closing:
            self._start_keeper()
        if not self._link.is_up:
            return
        self._tell_lease()
        is_retiring = self._link.phase is KeeperPhase.RETIRING
        self._link.write(self._plans.take_messages() if is_retiring else self._plans.take_untold())

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
        if now_s - self._stuck_since < KILL_STUCK_S and self._link.pid is not None:
            self._containment.kill_others(self.number, spare=self._link.pid)
        else:
            self._link.kill()

    def _look_whether_stopped(self, held: HeldPlan) -> None:
        """A keeper that neither ends what it was told to end nor says why does not work any more."""
        if self._plans.get(held.ref) is held and self._link.is_up and not self._stuck_since:
            log.error("keeper.hung", slot=self.number)
            self._link.kill()

    def _deliver(self, record: KeeperRecord, segment: int) -> None:
        if not self._plans.take(record):
            return
        if isinstance(record, ExitRecord):
            self._stuck_since = 0.0
            self._pins.pin(record.ref, segment)
            self._trash.tidy()
        self._on_record(record)

    def _catch_up(self, content: JournalContent) -> None:
        """Records that were written and not received."""
        for record, segment in self._plans.records_in(content):
            self._deliver(record, segment)

    # When the keeper is gone

    def _bury(self) -> None:
        self._link.reap()
        content = read_content(self._directory.read_journal())
        self._catch_up(content)
        # Told or begun. If it never answered, the next one will not either: all are given back.
        lost = self._plans.told if self._link.has_answered else list(self._plans.refs)
        self._plans.tell_no_more(lost)
        for ref in lost:
            if ref in content.segment_of:
                self._pins.pin(ref, content.segment_of[ref].number)
        self._left.note(content.starts[ref] for ref in lost if ref in content.starts)
        self._losing = tuple(lost)
        self._give_up_at = asyncio.get_running_loop().time() + (
            EMPTY_S if self._stuck_since else KILL_STUCK_S
        )
        self._link.enter(KeeperPhase.BURIED)
        self._empty_group()

    def _empty_group(self) -> None:
        """Ends what the keeper left; tells that its attempts are lost when none of it can run any more."""
        if self._left.end():
            self._tell_lost(self._why_lost())
            if self.is_stuck:
                log.info("slot.usable_again", slot=self.number)
            self.is_stuck, self._stuck_since = False, 0.0
            self._link.enter(KeeperPhase.ABSENT)
            self._flush()
        elif asyncio.get_running_loop().time() < self._give_up_at:
            self._link.after(LOOK_S, self._empty_group)
        else:
            if not self.is_stuck:
                log.error("slot.stuck", slot=self.number, hint="it is not used until its processes are gone")
            self.is_stuck = True
            self._tell_lost(LostOnNode(kind=FailureKind.INFRA_KILL_STUCK, reason=_STUCK))
            self._link.after(STUCK_LOOK_S, self._empty_group)

    def _why_lost(self) -> LostOnNode | PrepareFailed:
        if self._stuck_since:
            return LostOnNode(kind=FailureKind.INFRA_KILL_STUCK, reason=_STUCK)
        if self._link.pid is not None and not self._link.has_answered:
            return PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=self._link.why_absent())
        return LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason=KEEPER_LOST)

    def _tell_lost(self, what: LostOnNode | PrepareFailed) -> None:
        lost, self._losing = self._losing, ()
        self._plans.drop(lost)
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
        found = read_findings(content, held=self._plans.refs, boot_id=boot_id())
        for ref, segment in found.segments.items():
            self._pins.pin(ref, segment)
        self._left.note(found.strays)
        return SlotInventory(
            running=self._plans.running,
            queued=self._plans.queued,
            ended=found.ended,
            lost=found.lost,
            alive=is_alive,
            rebooted=found.rebooted,
        )
