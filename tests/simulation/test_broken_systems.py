"""The simulator must be able to fail: systems with one thing broken, and each is found out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation import agent, coordinator, slots
from tests.simulation.simulation import Outcome, run_seed
from windlass_agent.core.attempt_phases import PendingEvents, is_last
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.engine import fleet, report, session, settle
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.sqlite.store import SqliteTransaction
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.events import LostOnNode, Started
from windlass_proto.model.ids import NodeKey

SEEDS = 60
"""Within so many the fault must be found; most take a few."""


def first_failure(first: int = 0) -> Outcome:
    for seed in range(first, first + SEEDS):
        outcome = run_seed(seed, trace_lines=1)
        if outcome.failure:
            return outcome
    pytest.fail(f"{SEEDS} runs, and nobody noticed")


def whoever_asks(tx: Transaction, node_key: NodeKey, session: SessionRef) -> Any:
    """Any session of the node will do."""
    node = tx.node_view(node_key)
    assert node is not None
    return node


@pytest.fixture
def any_session_may_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator.Coordinator, "admit", staticmethod(whoever_asks))


@pytest.mark.usefixtures("any_session_may_report")
def test_fences_alone_keep_records_right() -> None:
    outcomes = [run_seed(seed, trace_lines=1) for seed in range(30)]
    # Only that: who is answered in a session that is over may keep what it should forget.
    assert [one.failure for one in outcomes if one.failure and "not over" not in one.failure] == []
    assert any(
        pair == ("report", "fenced", "Exited SUPERSEDED")
        for outcome in outcomes
        for pair in outcome.coverage.pairs
    )


@pytest.mark.usefixtures("any_session_may_report")
def test_reports_that_are_judged_without_their_fence_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(view: Any, event: Any, *, node_key: Any) -> Any:
        if view is not None:
            event = replace(event, ref=replace(event.ref, fence=view.fence))
            view = replace(view, node_key=node_key)
        return real(view, event, node_key=node_key)

    real = report.judge
    monkeypatch.setattr(report, "judge", judge)
    first_failure()


def test_a_fence_that_is_not_raised_when_attempts_are_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(*given: Any, **more: Any) -> Any:
        return replace(real(*given, **more), raise_fence=False)

    real = settle._decide_instance
    monkeypatch.setattr(settle, "_decide_instance", decide)
    assert "I6" in first_failure().failure


def test_an_agent_that_deletes_results_before_they_are_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(runner: AttemptRunner, attempt: Any) -> None:
        real(runner, attempt)
        runner.forget([attempt.ref])

    real = AttemptRunner.finish
    monkeypatch.setattr(AttemptRunner, "finish", finish)
    assert "I17" in first_failure().failure


def test_an_agent_that_takes_a_lost_keeper_for_success_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.coordinator import exits

    def on_keeper_lost(runner: AttemptRunner, number: int, refs: Sequence[Any], what: Any) -> None:
        for ref in refs:
            attempt = runner._table.get(ref)
            if attempt is not None:
                runner.end(attempt, exits(0) if isinstance(what, LostOnNode) else what)

    monkeypatch.setattr(AttemptRunner, "on_keeper_lost", on_keeper_lost)
    assert "I7" in first_failure().failure


def test_an_agent_that_writes_no_intents_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.Intents, "assign", lambda *_: None)
    assert "I15" in first_failure().failure


def test_an_agent_that_drops_what_was_not_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingEvents, "put_back", lambda *_: None)
    assert "L1" in first_failure().failure


def test_an_agent_that_forgets_what_stays_unconfirmed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(runner: AttemptRunner, event: Any, verdict: Any) -> None:
        real(runner, event, verdict)
        if isinstance(event.what, Started) or is_last(event.what):
            runner.forget([event.ref])

    real = AttemptRunner.answered
    monkeypatch.setattr(AttemptRunner, "answered", answered)
    first_failure()


def test_submits_that_are_not_remembered_by_their_key_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteTransaction, "find_submission", lambda *_: None)
    monkeypatch.setattr(SqliteTransaction, "add_submission", lambda *_, **__: None)
    failure = first_failure().failure
    assert "P1" in failure or "I8" in failure


def test_replacements_that_come_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_due(policy: LeasePolicy, **_: Any) -> Any:
        return policy.shortest_lease

    monkeypatch.setattr(fleet, "replace_due", replace_due)
    assert "C02" in first_failure().failure


def test_keepers_that_outlive_the_lease_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots.SimulatedSlot, "renew_lease", lambda *_: None)
    assert "C02" in first_failure().failure


def test_a_session_that_a_doubled_call_has_taken_from_a_node_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_is_said_again", lambda *_: False)
    assert "L7" in first_failure(first=0).failure
