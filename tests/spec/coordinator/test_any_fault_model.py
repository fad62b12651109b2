"""The verbs in any order, and beneath them a world that fails: replies get lost, machines restart, nodes are
drained and leave, the clock jumps, and the whole store goes back to an older backup.

Everything of `test_any_order` happens too; the invariants are looked at after each step.
"""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.spec.coordinator.test_any_order import AnyOrder, which
from tests.support.builders import Machine, exits, holds, told
from tests.support.coordinator import Backup, InMemoryCoordinator
from tests.support.examples import examples
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.settle import Rules
from windlass_proto.errors import Conflict, Denied, SessionLost
from windlass_proto.model.assignments import InventoryItem
from windlass_proto.model.events import LostOnNode, PrepareFailed
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict

# Small numbers, so that a short history gets there.
RULES = Rules(retry=RetryPolicy(poison_nodes=2, quarantine_jobs=2, infra_limit=5), jitter=lambda: 0.5)
TROUBLES = [
    PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason="no room"),
    LostOnNode(kind=FailureKind.PREEMPTED, reason="the provider takes the machine"),
    LostOnNode(kind=FailureKind.INFRA_KILL_STUCK, reason="would not die"),
]


class AnyFault(AnyOrder):
    def __init__(self) -> None:
        super().__init__()
        self.coordinator.store.close()
        self.coordinator = InMemoryCoordinator(rules=RULES)
        self.issued: set[tuple[int, ...]] = set()
        """Every fence that any life of the store has given out."""
        self.seen: set[tuple[int, ...]] = set()
        """Those that this life knows of."""
        self.backup: tuple[Backup, dict[str, JobId], set[JobId]] | None = None
        self.orphans: list[tuple[Machine, AttemptRef]] = []
        """What nodes were given by a life of the store that has been lost."""
        self.boots = 0

    # Messages

    @rule(node=which, want=st.sampled_from([1, 12]), asks_again=st.booleans())
    def lose_the_reply_to_a_poll(self, node: int, want: int, asks_again: bool) -> None:
        machine = self.nodes[node]
        known = list(machine.held)
        given = self._in_session(machine, lambda: self.coordinator.claim(machine, want=want))
        machine.held = known
        if asks_again:
            again = self.coordinator.poll_again(machine)
            assert sorted(again) == sorted(given)
            machine.held += again

    @rule(node=which)
    def lose_the_reply_to_open_session(self, node: int) -> None:
        machine = self.nodes[node]
        nonce, epoch = machine.nonce, machine.epoch
        self._open(machine, list(machine.held))
        machine.nonce, machine.epoch = nonce, epoch

    @rule(data=st.data(), node=which)
    def call_with_an_old_session(self, data: st.DataObject, node: int) -> None:
        """A delayed call of an earlier life of the agent: refused, and nothing changes (I18)."""
        machine = self.nodes[node]
        nonce, epoch = machine.nonce, machine.epoch
        self._open(machine, list(machine.held))
        newest = (machine.nonce, machine.epoch)
        machine.nonce, machine.epoch = nonce, epoch
        before = self._everything()
        calls = [
            lambda: self.coordinator.claim(machine, want=3),
            lambda: self.coordinator.report_all(machine, [told(ref, exits(0)) for ref in machine.held]),
            lambda: self.coordinator.release(machine, *machine.held),
            lambda: self.coordinator.leave(machine),
        ]
        try:
            data.draw(st.sampled_from(calls))()
        except SessionLost:
            assert self._everything() == before
        else:
            raise AssertionError("I18: a call of an old session was answered")
        machine.nonce, machine.epoch = newest

    @rule(node=which)
    def be_copied(self, node: int) -> None:
        """A copy of the machine comes with a nonce that was good once."""
        machine = self.nodes[node]
        self._open(machine, list(machine.held))
        self.coordinator.claim(machine, want=0)
        try:
            self.coordinator.open_session(machine, nonce="nonce of old")
        except Denied:
            return
        raise AssertionError("a copy was let in")

    # Machines

    @rule(node=which, with_results=st.booleans())
    def reboot(self, node: int, with_results: bool) -> None:
        """Processes are gone; what has an exit record is still told."""
        machine = self.nodes[node]
        self.boots += 1
        self._in_session(machine, lambda: self.coordinator.claim(machine, want=2))
        listed = set(machine.held[::2]) if with_results else set()
        inventory = [holds(ref, has_exit=ref in listed) for ref in machine.held[-20:]]
        self._open(machine, inventory, boot_id=f"boot-{self.boots + 1}")
        live = self.coordinator.rows("SELECT task_key, idx, attempt FROM attempts WHERE ended_at IS NULL")
        mine = {(r.task_key, r.index, r.attempt) for r in machine.held if r not in listed}
        assert not mine & set(live), "nothing outlives a reboot without a record"

    @rule(data=st.data(), node=which)
    def fail_in_ways_of_ours(self, data: st.DataObject, node: int) -> None:
        machine = self.nodes[node]
        refs = self._in_session(machine, lambda: self.coordinator.claim(machine, want=2)) or machine.held[-2:]
        self._report(machine, [(ref, data.draw(st.sampled_from(TROUBLES))) for ref in refs])

    @rule(node=which, minutes=st.none() | st.sampled_from([0, 5]))
    def drain(self, node: int, minutes: int | None) -> None:
        machine = self.nodes[node]
        within = None if minutes is None else timedelta(minutes=minutes)
        try:
            self.coordinator.drain(machine, within=within)
        except Conflict:
            return
        self.coordinator.look_at_drain(machine)
        assert self._in_session(machine, lambda: self.coordinator.claim(machine, want=5)) == []

    @rule(node=which)
    def resume(self, node: int) -> None:
        self.coordinator.resume(self.nodes[node])

    @rule(node=which)
    def look_at_drain(self, node: int) -> None:
        self.coordinator.look_at_drain(self.nodes[node])

    @rule(node=which)
    def leave(self, node: int) -> None:
        machine = self.nodes[node]
        self._in_session(machine, lambda: self.coordinator.leave(machine))
        self.nodes[node] = self.coordinator.node()

    @rule(node=which)
    def answer_the_audit(self, node: int) -> None:
        machine = self.nodes[node]
        asked = self._in_session(machine, lambda: self.coordinator.audit(machine))
        missing = [ref for ref in asked if ref not in machine.held]
        self._in_session(machine, lambda: self.coordinator.miss(machine, *missing))
        assert not set(missing) & set(self._in_session(machine, lambda: self.coordinator.audit(machine)))

    # Time and storage

    @rule(hours=st.sampled_from([-24, 1, 24]))
    def jump_the_clock(self, hours: int) -> None:
        """The duty that watches the clock moves what is due with it."""
        by = timedelta(hours=hours)
        self.coordinator.later(by)
        self.coordinator.store.run_now(lambda tx: tx.shift_due(by))

    @rule()
    def back_up(self) -> None:
        self.backup = (self.coordinator.back_up(), dict(self.acknowledged), set(self.deleted))

    @precondition(lambda self: self.backup)
    @rule()
    def restore_the_backup(self) -> None:
        assert self.backup is not None
        backup, acknowledged, deleted = self.backup
        self.coordinator.restore(backup)
        self.acknowledged, self.deleted = dict(acknowledged), set(deleted)
        stored = {
            AttemptRef(task_key=t, index=i, attempt=a, fence=f)
            for t, i, a, f in self.coordinator.rows("SELECT task_key, idx, attempt, fence FROM attempts")
        }
        known = {key for (key,) in self.coordinator.rows("SELECT node_key FROM nodes")}
        for position, machine in enumerate(self.nodes):
            self.orphans += [(machine, ref) for ref in machine.held if ref not in stored]
            machine.held = [ref for ref in machine.held if ref in stored]
            if machine.key not in known:
                self.nodes[position] = self.coordinator.node()
        self.told = [(machine, news) for machine, news in self.told if machine.key in known]
        self.orphans = [(machine, ref) for machine, ref in self.orphans if machine.key in known]
        self.seen = self._fences()
        self.backup = None

    @rule(data=st.data(), node=which)
    def lose_what_was_done_since_the_backup(self, data: st.DataObject, node: int) -> None:
        self.back_up()
        self.work(data, node, 3)
        self.no_fence_is_issued_twice()
        self.restore_the_backup()
        self.work(data, 1 - node, 3)

    @precondition(lambda self: self.orphans)
    @rule(data=st.data())
    def report_what_the_store_has_forgotten(self, data: st.DataObject) -> None:
        machine, ref = data.draw(st.sampled_from(self.orphans))
        self._report(machine, [(ref, exits(0))], expect={EventVerdict.UNKNOWN, EventVerdict.SUPERSEDED})

    # What must hold

    @invariant()
    def every_acknowledged_job_is_there_and_no_other(self) -> None:
        stored = {
            row[0]
            for row in self.coordinator.rows("SELECT job_id FROM jobs WHERE job_id NOT LIKE 'restored-%'")
        }
        assert stored == set(self.acknowledged.values()), "I8"

    @invariant()
    def no_fence_is_issued_twice(self) -> None:
        """Also over a restore (I2)."""
        now = self._fences()
        assert not (now - self.seen) & self.issued, "I2"
        self.seen = now
        self.issued |= now

    def _fences(self) -> set[tuple[int, ...]]:
        return set(self.coordinator.rows("SELECT task_key, idx, fence FROM attempts"))

    def _let_all_end(self) -> None:
        for node in self.nodes:
            self.coordinator.resume(node)
        super()._let_all_end()

    def _open(self, machine: Machine, held: list[Any], *, boot_id: str | None = None) -> None:
        """What was lost with its node, or taken from it, must not go on there."""
        items = [item if isinstance(item, InventoryItem) else holds(item) for item in held]
        opened = self.coordinator.open_session(machine, *items, boot_id=boot_id)
        lost = {
            AttemptRef(task_key=t, index=i, attempt=a, fence=f)
            for t, i, a, f in self.coordinator.rows(
                "SELECT task_key, idx, attempt, fence FROM attempts WHERE state IN ('LOST', 'RELEASED')"
            )
        }
        for item in opened.verdicts:
            assert item.ref not in lost or item.verdict is InventoryVerdict.KILL


TestAnyFault = AnyFault.TestCase
TestAnyFault.settings = examples(12, steps=40)
