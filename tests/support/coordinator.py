"""The coordinator's verbs over SQLite in memory, in the words that specs need.

`InMemoryCoordinator` runs one verb at a time and has the invariants of protocol.md checked after each of
them. Its clock stands still until a spec moves it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.builders import (
    Machine,
    a_job,
    exits,
    node_facts,
    refs_of,
    told,
)
from tests.support.invariants import InvariantWatch
from windlass_coordinator.core.incarnations import next_incarnation
from windlass_coordinator.core.publishing import Publication
from windlass_coordinator.core.records import Claimed, NodeView
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine import nodes, steer, sweep
from windlass_coordinator.engine.claim import claim
from windlass_coordinator.engine.clusters import NewJoinToken, create_cluster, create_join_token
from windlass_coordinator.engine.publish_outputs import Commit, commit_outputs
from windlass_coordinator.engine.report import report
from windlass_coordinator.engine.revoke import release
from windlass_coordinator.engine.session import (
    GrantedSession,
    NewNode,
    OpenRequest,
    current_node,
    join,
    leave,
    open_session,
)
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.engine.submit import Submission, Submitted, submit
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.assignments import InventoryItem
from windlass_proto.model.events import AttemptEvent, Happening
from windlass_proto.model.ids import (
    DEFAULT_CLUSTER,
    DEFAULT_TENANT,
    AttemptRef,
    JobId,
    NodeId,
    NodeKey,
    TenantId,
)
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import AttemptState, JobState, TaskState
from windlass_proto.model.status import InstanceCounts, InstanceStatus, JobStatus, NodeFacts
from windlass_proto.model.verdicts import EventVerdict

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = Rules(retry=RetryPolicy(), jitter=lambda: 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """All rows of all tables, and what the invariants know of them."""

    tables: dict[str, list[tuple[Any, ...]]]
    watch: InvariantWatch


class InMemoryCoordinator(AbstractContextManager["InMemoryCoordinator"]):
    """A store in memory with the default cluster, and every verb as a method."""

    def __init__(self, *, rules: Rules = RULES) -> None:
        self.store = open_store("sqlite:///:memory:")
        self.rules = rules
        self.now = START
        self.watch = InvariantWatch()
        self._made = 0
        self.create_cluster(DEFAULT_CLUSTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()

    # -- running

    def run(self, verb: Callable[[Transaction], T]) -> T:
        """Runs a verb, then checks all invariants."""
        try:
            return self.store.run_now(verb)
        finally:
            self.store.run_now(lambda tx: self.watch.look(partial(_rows_in, tx)))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Straight from the tables: what the coordinator says of itself is what is to be checked."""
        return self.store.run_now(lambda tx: _rows_in(tx, query, *values))

    def later(self, by: timedelta) -> None:
        self.now += by

    def fresh(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}-{self._made}"

    # -- backups

    def back_up(self) -> Backup:
        tables = self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        return Backup(
            tables={name: self.rows(f"SELECT * FROM {name}") for (name,) in tables},
            watch=deepcopy(self.watch),
        )

    def restore(self, backup: Backup) -> None:
        """The store as it was, in the next incarnation; what has happened since never happened."""

        def verb(tx: Any) -> None:  # Any: SQLite's transaction
            issued = tx.incarnation()
            tx._db.execute("PRAGMA defer_foreign_keys = ON")
            for name, rows in backup.tables.items():
                tx._db.execute(f"DELETE FROM {name}")
                if rows:
                    places = ", ".join("?" * len(rows[0]))
                    tx._db.executemany(f"INSERT INTO {name} VALUES ({places})", rows)
            following = next_incarnation((issued,), now=self.now)
            assert following is not None
            tx.begin_incarnation(following, now=self.now)

        self.watch = deepcopy(backup.watch)
        self.run(verb)

    # -- jobs

    def submit(
        self, spec: JobSpec | None = None, *, key: str = "", tenant: TenantId = DEFAULT_TENANT
    ) -> JobId:
        return self.submit_again(spec, key=key, tenant=tenant).job_id

    def submit_again(
        self, spec: JobSpec | None = None, *, key: str = "", tenant: TenantId = DEFAULT_TENANT
    ) -> Submitted:
        """The same with the whole answer."""
        request = Submission(
            tenant=tenant, spec=spec or a_job(), idempotency_key=key, job_id=JobId(self.fresh("job"))
        )
        return self.run(lambda tx: submit(tx, request, now=self.now))

    def stop(self, job_id: JobId, *, tenant: TenantId = DEFAULT_TENANT) -> None:
        self.run(lambda tx: steer.stop(tx, tenant, job_id, now=self.now))

    def restart(self, job_id: JobId, *, all_instances: bool = False) -> None:
        self.run(
            lambda tx: steer.restart(tx, DEFAULT_TENANT, job_id, all_instances=all_instances, now=self.now)
        )

    def delete(self, job_id: JobId, *, stop_first: bool = False) -> bool:
        return self.run(
            lambda tx: steer.delete(tx, DEFAULT_TENANT, job_id, stop_first=stop_first, now=self.now)
        )

    def set_priority(self, job_id: JobId, priority: int) -> None:
        self.run(
            lambda tx: steer.update_priority(tx, DEFAULT_TENANT, job_id, priority=priority, now=self.now)
        )

    # -- what users see

    def status(self, job_id: JobId) -> JobStatus:
        found = asyncio.run(self.store.read(lambda q: q.job_status(job_id, tenant=DEFAULT_TENANT)))
        assert found is not None, f"there is no {job_id}"
        return found

    def state(self, job_id: JobId) -> JobState:
        return self.status(job_id).state

    def task_states(self, job_id: JobId) -> dict[str, TaskState]:
        return {task.name: task.state for task in self.status(job_id).tasks}

    def counts(self, job_id: JobId, task: str = "task") -> InstanceCounts:
        return next(found.counts for found in self.status(job_id).tasks if found.name == task)

    def instance(self, job_id: JobId, index: int = 0, *, task: str = "task") -> InstanceStatus:
        """One instance with all its attempts."""
        found = asyncio.run(
            self.store.read(
                lambda q: q.list_instances(
                    job_id,
                    tenant=DEFAULT_TENANT,
                    task=task,
                    index=index,
                    limit=1,
                    after=None,
                    all_attempts=True,
                )
            )
        )
        assert found is not None
        return found[0][0]

    def attempt_states(self, job_id: JobId, index: int = 0, *, task: str = "task") -> list[AttemptState]:
        return [attempt.state for attempt in self.instance(job_id, index, task=task).attempts]

    # -- machines

    def create_cluster(self, name: str, *, tenant: TenantId = DEFAULT_TENANT) -> None:
        self.run(lambda tx: create_cluster(tx, tenant, name, description="", now=self.now))

    def join_token(self, cluster: str = DEFAULT_CLUSTER, *, uses: int = 1) -> str:
        """The id of a new join token."""
        new = NewJoinToken(
            kind="wlj",
            token_id=self.fresh("token"),
            digest="digest",
            cluster=cluster,
            uses=uses,
            valid_for=timedelta(minutes=15),
        )
        self.run(lambda tx: create_join_token(tx, DEFAULT_TENANT, new, now=self.now))
        return new.token_id

    def join(self, token_id: str, facts: NodeFacts | None = None) -> Machine:
        """A machine without a session yet."""
        facts = facts or node_facts()
        new = NewNode(
            node_id=NodeId(self.fresh("node")),
            credential_kind="wln",
            credential_id=self.fresh("credential"),
            credential_digest="digest",
        )

        def verb(tx: Transaction) -> NodeKey:
            token = tx.credential(token_id)
            assert token is not None
            return join(tx, token, facts, new, now=self.now)

        return Machine(key=self.run(verb), node_id=new.node_id, facts=facts)

    def node(self, *, cluster: str = DEFAULT_CLUSTER, **facts: Any) -> Machine:
        """A machine of the cluster, ready for work."""
        machine = self.join(self.join_token(cluster), node_facts(**facts))
        self.open_session(machine)
        return machine

    def open_session(
        self,
        machine: Machine,
        *inventory: InventoryItem,
        nonce: str | None = None,
        boot_id: str | None = None,
        logs_stored: bool = True,
    ) -> GrantedSession:
        """The machine begins a session; `nonce` = what it presents instead of its newest one, `boot_id` = it
        has been restarted."""
        machine.boot_id = boot_id or machine.boot_id
        request = OpenRequest(
            state_id="state-1",
            boot_id=machine.boot_id,
            last_nonce=machine.nonce if nonce is None else nonce,
            facts=machine.facts,
            inventory=inventory,
        )
        fresh = self.fresh("nonce")
        opened = self.run(
            lambda tx: open_session(
                tx,
                _known(tx.node_view(machine.key)),
                request,
                nonce=fresh,
                logs_stored=lambda _: logs_stored,
                rules=self.rules,
                now=self.now,
            )
        )
        machine.nonce, machine.epoch, machine.poll_seq = opened.nonce, opened.epoch, 0
        return opened

    def claim_batches(self, machine: Machine, *, want: int = 1) -> list[Claimed]:
        machine.poll_seq += 1
        batches = self.run(
            lambda tx: claim(
                tx,
                current_node(tx, machine.key, machine.session),
                want=want,
                poll_seq=machine.poll_seq,
                now=self.now,
            )
        )
        machine.held += refs_of(batches)
        return batches

    def claim(self, machine: Machine, *, want: int = 1) -> list[AttemptRef]:
        return refs_of(self.claim_batches(machine, want=want))

    def claim_one(self, machine: Machine) -> AttemptRef:
        """The one attempt that there is to be had."""
        (ref,) = self.claim(machine)
        return ref

    def poll_again(self, machine: Machine) -> list[AttemptRef]:
        """What a repetition of the machine's last poll brings."""
        return refs_of(
            self.run(
                lambda tx: tx.leased_by_poll(
                    current_node(tx, machine.key, machine.session), poll_seq=machine.poll_seq
                )
            )
        )

    def report_all(self, machine: Machine, events: Sequence[AttemptEvent]) -> list[EventVerdict]:
        return self.run(
            lambda tx: report(
                tx, current_node(tx, machine.key, machine.session), events, rules=self.rules, now=self.now
            )
        )

    def report(self, machine: Machine, ref: AttemptRef, *happenings: Happening) -> EventVerdict:
        """Tells of one attempt, all in one report; the verdict on the last event."""
        return self.report_all(
            machine, [told(ref, what, seq=seq) for seq, what in enumerate(happenings, start=1)]
        )[-1]

    def finish(self, machine: Machine, *, code: int = 0, want: int = 1_000) -> list[AttemptRef]:
        """Claims what there is and lets all of it exit."""
        refs = self.claim(machine, want=want)
        self.report_all(machine, [told(ref, exits(code)) for ref in refs])
        return refs

    def commit_outputs(
        self, machine: Machine, ref: AttemptRef, *, digest: str = "d" * 64, of_failed_command: bool = False
    ) -> Commit:
        wanted = Publication(ref=ref, manifest_digest=digest, files=1, size_bytes=2)
        return self.run(
            lambda tx: commit_outputs(
                tx,
                current_node(tx, machine.key, machine.session),
                wanted,
                of_failed_command=of_failed_command,
            )
        )

    def release(self, machine: Machine, *refs: AttemptRef) -> list[bool]:
        return self.run(
            lambda tx: release(
                tx,
                current_node(tx, machine.key, machine.session),
                list(refs),
                rules=self.rules,
                now=self.now,
            )
        )

    def leave(self, machine: Machine) -> None:
        self.run(
            lambda tx: leave(
                tx, current_node(tx, machine.key, machine.session), rules=self.rules, now=self.now
            )
        )

    def drain(
        self, machine: Machine, *, within: timedelta | None = None, tenant: TenantId = DEFAULT_TENANT
    ) -> None:
        self.run(lambda tx: nodes.drain(tx, tenant, machine.node_id, within=within, now=self.now))

    def resume(self, machine: Machine) -> None:
        self.run(lambda tx: nodes.resume(tx, DEFAULT_TENANT, machine.node_id, now=self.now))

    def look_at_drain(self, machine: Machine) -> None:
        """What the coordinator does every second about a draining node."""

        def verb(tx: Transaction) -> None:
            if not nodes.settle_drain(tx, machine.key, now=self.now):
                nodes.end_drain(tx, machine.key, rules=self.rules, now=self.now)

        self.run(verb)

    def to_end(self, machine: Machine) -> list[AttemptRef]:
        """What a heartbeat's reply tells the machine to end."""
        return self.run(
            lambda tx: nodes.attempts_to_end(tx, current_node(tx, machine.key, machine.session), now=self.now)
        )

    def audit(self, machine: Machine) -> list[AttemptRef]:
        """What a heartbeat's reply asks for."""
        deadline = timedelta(minutes=5)
        return self.run(
            lambda tx: nodes.attempts_to_audit(
                tx, current_node(tx, machine.key, machine.session), accept_deadline=deadline, now=self.now
            )
        )

    def miss(self, machine: Machine, *refs: AttemptRef) -> None:
        """The machine says that it does not have these."""
        self.run(
            lambda tx: nodes.settle_missing(
                tx, current_node(tx, machine.key, machine.session), refs, rules=self.rules, now=self.now
            )
        )

    def poll_empty(self, machine: Machine) -> None:
        """Its next poll, which says that it has nothing; it gets nothing either."""
        machine.poll_seq += 1
        self.run(
            lambda tx: nodes.settle_never_arrived(
                tx,
                current_node(tx, machine.key, machine.session),
                poll_seq=machine.poll_seq,
                rules=self.rules,
                now=self.now,
            )
        )

    # -- time alone

    def ready_due(self) -> datetime | None:
        return self.run(lambda tx: sweep.ready_due(tx, policy=self.rules.retry, now=self.now))

    def mark_silent(self, machine: Machine) -> None:
        self.run(lambda tx: sweep.mark_silent(tx, machine.key, now=self.now))

    def replace(self, machine: Machine) -> None:
        """All of them are due, whatever their tasks say."""
        self.run(
            lambda tx: sweep.replace_attempts(
                tx, machine.key, is_due=lambda _: True, rules=self.rules, now=self.now
            )
        )


def _rows_in(tx: Any, query: str, *values: object) -> list[tuple[Any, ...]]:  # Any: SQLite's transaction
    return list(tx._db.execute(query, values))


def _known(node: NodeView | None) -> NodeView:
    assert node is not None
    return node
