"""The invariants of protocol.md, section 5, after every commit: the tables against the ledger."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.simulation.coverage import Coverage
from tests.simulation.end_checks import check_facts, check_logs
from tests.simulation.ledger import Ledger
from tests.simulation.oracle import expected_end
from tests.simulation.store import Order, SimulatedStore
from tests.simulation.world import SimulationFailure, World
from tests.support.invariants import InvariantWatch
from windlass_coordinator.logstore.base import LogStore
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

_JOBS = "SELECT job_id, deleted_at FROM jobs WHERE job_id NOT LIKE 'restored-%'"
_RESULTS = ("SUCCEEDED", "FAILED", "STOPPED")
_ENDED = (*_RESULTS, "LOST", "RELEASED")
_BY_NODES = ("Report", "Release", "Heartbeat", "OpenSession", "AppendLog")
_AttemptKey = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    watch: InvariantWatch
    attempts: dict[_AttemptKey, tuple[Any, ...]]
    states: dict[tuple[str, int], str]


class Checks:
    def __init__(self, world: World, store: SimulatedStore, ledger: Ledger, coverage: Coverage) -> None:
        self._world, self._store, self._ledger, self._coverage = world, store, ledger, coverage
        self._watch = InvariantWatch()
        self._changes = store.db.total_changes
        self._attempts: dict[_AttemptKey, tuple[Any, ...]] = {}
        self._fences: set[tuple[int, int, int]] = set()
        self._states: dict[tuple[str, int], str] = {}
        self._incarnations = 0
        ledger.is_wanted = self._is_wanted

    def after_commit(self, orders: Sequence[Order]) -> None:
        changes = self._store.db.total_changes
        if changes == self._changes:
            return
        self._changes = changes
        actors = [order.actor for order in orders]
        try:
            self._watch.look(self._store.rows)
        except AssertionError as error:
            raise SimulationFailure(str(error)) from None
        self._look_at_attempts(actors)
        self._note_transitions(actors)

    def remember(self) -> "Memory":
        """What is known of the tables now, to be known again when they come back from a backup."""
        return Memory(deepcopy(self._watch), dict(self._attempts), dict(self._states))

    def restored(self, memory: "Memory") -> None:
        """The tables are those of an older time; what was issued since stays issued."""
        self._watch = deepcopy(memory.watch)
        self._attempts, self._states = dict(memory.attempts), dict(memory.states)
        self._incarnations += 1
        self._changes = -1

    # Attempts

    def _look_at_attempts(self, actors: Sequence[str]) -> None:
        seen: dict[_AttemptKey, tuple[Any, ...]] = {}
        for row in self._store.rows(
            "SELECT task_key, idx, attempt, fence, state, node_key, exit_code, failure FROM attempts"
        ):
            key = row[:3]
            seen[key] = row
            before = self._attempts.get(key)
            if before == row:
                continue
            if before is None and self._attempts:
                self._note_claim(row)
            if before is None or before[4] != row[4]:
                self._coverage.saw("attempt", before[4] if before else "-", f"-> {row[4]}")
                self._world.note("attempt", ref_of(row), before[4] if before else "-", "->", row[4], row[7])
                self._check_end(row)
                self._check_actor(row, actors)
        self._attempts = seen

    def _note_claim(self, row: tuple[Any, ...]) -> None:
        issued = (row[0], row[1], row[3])
        if issued in self._fences:
            raise SimulationFailure(f"I2: fence {row[3]} of {row[:2]} was issued twice")
        self._fences.add(issued)

    def _check_end(self, row: tuple[Any, ...]) -> None:
        state, ref = row[4], ref_of(row)
        record = self._ledger.exits.get(ref)
        if state == "SUCCEEDED" and (record is None or record.code != 0 or record.stopped):
            raise SimulationFailure(f"I7: {ref} SUCCEEDED, its exit record is {record}")
        if state in _RESULTS and ref in self._ledger.alive:
            raise SimulationFailure(f"P22: {ref} is {state} and runs on {self._ledger.alive[ref].node.name}")

    def _check_actor(self, row: tuple[Any, ...], actors: Sequence[str]) -> None:
        """What only nodes did can have ended attempts of theirs alone."""
        if row[4] not in _ENDED or not all(actor.startswith(_BY_NODES) for actor in actors):
            return
        names = {actor.split()[-1] for actor in actors}
        node = self._ledger.nodes.get(row[5])
        if node is not None and node.name not in names:
            raise SimulationFailure(f"I18: {ref_of(row)} of {node.name} was ended by {actors}")

    def _is_wanted(self, ref: AttemptRef) -> bool:
        """Whether the coordinator has not recorded this attempt's end yet."""
        rows = self._store.rows(
            "SELECT ended_at FROM attempts WHERE task_key = ? AND idx = ? AND attempt = ? AND fence = ?",
            ref.task_key,
            ref.index,
            ref.attempt,
            ref.fence,
        )
        return bool(rows) and rows[0][0] is None

    # Coverage of the others

    def _note_transitions(self, actors: Sequence[str]) -> None:
        who = _verb_of(actors)
        queries = {
            "job": "SELECT job_key, state FROM jobs",
            "task": "SELECT task_key, state FROM tasks",
            "node": "SELECT node_key, state FROM nodes",
            "instance": "SELECT task_key * 1000 + idx, state FROM instances",
        }
        for kind, query in queries.items():
            for key, state in self._store.rows(query):
                before = self._states.get((kind, key), "-")
                if before != state:
                    self._states[kind, key] = state
                    self._coverage.saw(kind, before, f"{who} -> {state}")
                    if kind in ("job", "node"):
                        self._world.note(kind, key, before, "->", state)

    # At the end

    def at_the_end(self, archive: LogStore) -> None:
        self._check_submissions()
        self._check_oracle()
        check_logs(self._store.rows, self._ledger, archive)
        check_facts(self._store.rows)

    def _check_submissions(self) -> None:
        known = {job.job_id: job for job in self._ledger.jobs.values() if job.job_id is not None}
        present = {row[0]: row[1] for row in self._store.rows(_JOBS)}
        for job_id, job in known.items():
            if job_id not in present and not job.is_lost:
                raise SimulationFailure(f"I8: {job_id} ({job.key}) was acknowledged and is not there")
        if len(present) > len(self._ledger.jobs) * (1 + self._incarnations):
            raise SimulationFailure(f"I8: {len(present)} jobs, {len(self._ledger.jobs)} were submitted")

    def _check_oracle(self) -> None:
        for job in self._ledger.jobs.values():
            if job.steered or job.is_lost:
                continue
            ((job_key, state),) = self._store.rows(
                "SELECT job_key, state FROM jobs WHERE job_id = ?", job.job_id
            )
            if self._has_bad_luck(job_key):
                continue
            expected = expected_end(job.spec)
            tasks = dict(self._store.rows("SELECT name, state FROM tasks WHERE job_key = ?", job_key))
            if state != expected.job or (expected.tasks is not None and tasks != expected.tasks):
                raise SimulationFailure(
                    f"P3: {job.key} ended {state} {tasks}, without faults it is {expected}"
                )

    def _has_bad_luck(self, job_key: int) -> bool:
        """Whether the infrastructure took more from an instance than it may lose."""
        return bool(
            self._store.rows(
                "SELECT 1 FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN instances i "
                "ON i.task_key = a.task_key AND i.idx = a.idx "
                "WHERE t.job_key = ? AND (a.failure = 'POISON' OR i.infra_failures > 10) LIMIT 1",
                job_key,
            )
        )


def ref_of(row: tuple[Any, ...]) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(row[0]), index=row[1], attempt=row[2], fence=Fence(row[3]))


def _verb_of(actors: Sequence[str]) -> str:
    """What the commit was for; with several verbs nobody can say whose a change is."""
    verbs = {actor.split(" n")[0].split(" user")[0].replace(" agent", "") for actor in actors}
    return verbs.pop() if len(verbs) == 1 else "several"
