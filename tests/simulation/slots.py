"""The agent's end of a keeper: an executor for the real runner, as `runner/keeper_client.py` is one."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.disk import SlotJournal
from tests.simulation.keeper import Keeper
from tests.simulation.world import Process
from windlass_agent.core.readoption import KEEPER_LOST
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, Lease
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_proto.model.events import LostOnNode
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef

if TYPE_CHECKING:
    from tests.simulation.node import Node

_LOST = LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason=KEEPER_LOST)
_TELL_S = 0.001
_NOTICE_S = (0.001, 0.05)
"""Until the death of a keeper is seen and its group is empty."""


@dataclass(slots=True)
class _Held:
    plan: CommandPlan | None
    is_told: bool = False
    is_started: bool = False


class SimulatedSlot:
    """One slot as one life of the agent sees it."""

    def __init__(self, node: "Node", number: int, process: Process, runner: AttemptRunner) -> None:
        self.node, self.number, self.process = node, number, process
        self._life = process.life
        self._runner = runner
        self._held: dict[AttemptRef, _Held] = {}
        self._is_burying = False
        self._lease: Lease | None = None

    # Executor

    async def adopt(self) -> SlotInventory:
        keeper = self._keeper()
        if keeper is not None:
            self._attach(keeper)
            if keeper.command is not None:
                self._held[keeper.command.ref] = _Held(None, is_told=True, is_started=True)
            for plan in keeper.queue:
                self._held[plan.ref] = _Held(None, is_told=True)
        else:
            self._empty_group()
        old = {ref: seg for ref, seg in self._journal.records().items() if ref not in self._held}
        lost = tuple(ref for ref in old if ref not in old[ref].ends)
        return SlotInventory(
            running=next((ref for ref, held in self._held.items() if held.is_started), None),
            queued=tuple(ref for ref, held in self._held.items() if not held.is_started),
            ended=tuple(old[ref].ends[ref] for ref in old if ref in old[ref].ends),
            lost=lost,
            alive=keeper is not None,
            rebooted=any(old[ref].boot_id != self.node.boot_id for ref in lost),
        )

    async def start(self) -> None:
        """Keepers start with the first plan."""

    async def close(self, *, end_keeper: bool) -> None:
        """Simulated agents are killed."""

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        assert plan.ref not in self._held, f"{plan.ref} was handed over twice"
        self._held[plan.ref] = _Held(plan)
        self._flush()

    def renew_lease(self, lease: Lease) -> None:
        self._lease = lease
        keeper = self._keeper()
        if keeper is not None:
            self.node.world.after(_TELL_S, partial(keeper.renew, lease), keeper)

    @property
    def is_stuck(self) -> bool:
        return False

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        keeper = self._keeper()
        if ref in self._held and keeper is not None:
            self.node.world.after(_TELL_S, partial(keeper.stop, ref, grace_s), keeper)

    def forget(self, ref: AttemptRef) -> None:
        self.node.ledger.attempt_let_go(self.node, ref)
        self._journal.forget(ref)

    # What keepers say

    def hear(self, record: KeeperRecord) -> None:
        """The keeper's word for a life of the agent that is over reaches nobody."""
        if self.process.life == self._life:
            self._deliver(record)

    def _deliver(self, record: KeeperRecord) -> None:
        held = self._held.get(record.ref)
        if held is None:
            return
        if isinstance(record, ExitRecord):
            del self._held[record.ref]
        elif held.is_started:
            return
        held.is_started = True
        self._runner.on_record(record)

    # Keepers that come and go

    @property
    def _journal(self) -> SlotJournal:
        return self.node.disk.journals[self.number]

    def _keeper(self) -> Keeper | None:
        keeper = self.node.keepers[self.number]
        return keeper if keeper is not None and keeper.is_alive else None

    def _attach(self, keeper: Keeper) -> None:
        keeper.agent = self
        process, life = self.process, self.process.life

        def noticed() -> None:
            if process.is_alive and process.life == life:
                self._is_burying = True
                process.after(self.node.world.rng.uniform(*_NOTICE_S), self._bury)

        keeper.on_death.append(noticed)

    def _flush(self) -> None:
        if self._is_burying:
            return
        keeper = self._keeper()
        if keeper is None:
            keeper = self.node.start_keeper(self.number)
            self._attach(keeper)
            if self._lease is not None:
                self.renew_lease(self._lease)
        for held in self._held.values():
            if not held.is_told and held.plan is not None:
                held.is_told = True
                self.node.world.after(_TELL_S, partial(keeper.enqueue, held.plan), keeper)

    def _bury(self) -> None:
        """The journal tells what was missed; what was told and has no exit record is lost."""
        records = self._journal.records()
        for ref in [ref for ref in self._held if ref in records]:
            record = records[ref].ends.get(ref)
            if record is not None:
                self._deliver(record)
        self._empty_group()
        lost = tuple(ref for ref, held in self._held.items() if held.is_told)
        for ref in lost:
            del self._held[ref]
        if lost:
            self._runner.course.on_keeper_lost(self.number, lost, _LOST)
        self._is_burying = False
        if self._held:
            self._flush()

    def _empty_group(self) -> None:
        for command in [one for one in self.node.commands if one.keeper.number == self.number]:
            command.end(9)
            self.node.commands.remove(command)
