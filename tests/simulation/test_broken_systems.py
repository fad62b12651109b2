"""The simulator must be able to fail: systems with one thing broken, and each is found out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from tests.simulation import agent, coordinator, users
from tests.simulation.simulation import Outcome, run_seed
from tests.support.builders import exits
from windlass_agent.core.attempt_phases import PendingEvents
from windlass_agent.runner.attempt_course import AttemptCourse
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.attempt_table import AttemptTable
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.engine import fleet, report, session, settle
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.sqlite.store import SqliteTransaction
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.events import LostOnNode
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.specs import DisconnectPolicy, TaskSpec
from windlass_proto.model.states import AttemptState

SEEDS = 80
"""Within so many the fault must be found; most take a few."""
_BAD_LINES = ("partition", "be_slow", "be_lossy")


def first_failure(*only: str, seeds: int = SEEDS) -> str:
    """Of runs with these faults, or with any."""
    for seed in range(seeds):
        outcome = run_seed(seed, only=only or None, trace_lines=1)
        if outcome.failure:
            return outcome.failure
    pytest.fail(f"{seeds} runs, and nobody noticed")


def whoever_asks(tx: Transaction, node_key: NodeKey, session: SessionRef) -> Any:
    """Any session of the node will do."""
    node = tx.node_view(node_key)
    assert node is not None
    return node


@pytest.fixture
def any_session_may_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is late is judged at all: sessions keep it out otherwise."""
    monkeypatch.setattr(coordinator.Coordinator, "admit", staticmethod(whoever_asks))


def superseded(outcome: Outcome) -> int:
    return sum(n for (kind, _, event), n in outcome.coverage.pairs.items() if event.endswith("SUPERSEDED"))


@pytest.mark.usefixtures("any_session_may_report")
def test_late_reports_of_old_sessions_change_no_record() -> None:
    outcomes = [run_seed(seed, only=_BAD_LINES, trace_lines=1) for seed in range(40)]
    # Only that: who is answered in a session that is over may keep what it should forget.
    assert [one.failure for one in outcomes if one.failure and "not over" not in one.failure] == []
    assert sum(map(superseded, outcomes)) > 0


@pytest.mark.usefixtures("any_session_may_report")
def test_late_reports_that_are_judged_as_if_in_time_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(view: Any, event: Any, **more: Any) -> Any:
        if view is not None and view.state in (AttemptState.LOST, AttemptState.RELEASED):
            view = replace(view, state=AttemptState.RUNNING)
        return real(view, event, **more)

    real = report.judge
    monkeypatch.setattr(report, "judge", judge)
    assert "not over" not in first_failure(*_BAD_LINES)


def test_a_fence_that_is_not_raised_when_attempts_are_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(*given: Any, **more: Any) -> Any:
        return replace(real(*given, **more), raise_fence=False)

    real = settle._decide_instance
    monkeypatch.setattr(settle, "_decide_instance", decide)
    assert "I6" in first_failure()


def test_an_agent_that_deletes_results_before_they_are_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(course: AttemptCourse, attempt: Any) -> None:
        real(course, attempt)
        course._table.remove([attempt])

    real = AttemptCourse.finish
    monkeypatch.setattr(AttemptCourse, "finish", finish)
    assert "I17" in first_failure()


def test_an_agent_that_takes_a_lost_keeper_for_success_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_keeper_lost(course: AttemptCourse, number: int, refs: Sequence[Any], what: Any) -> None:
        for ref in refs:
            attempt = course._table.get(ref)
            if attempt is not None:
                course.end(attempt, exits(0) if isinstance(what, LostOnNode) else what)

    monkeypatch.setattr(AttemptCourse, "on_keeper_lost", on_keeper_lost)
    assert "I7" in first_failure("kill_keeper")


def test_an_agent_that_writes_no_intents_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.Intents, "assign", lambda *_: None)
    assert "I15" in first_failure()


def test_an_agent_that_tells_nothing_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingEvents, "put_back", lambda *_: None)
    monkeypatch.setattr(AttemptTable, "tell_again", lambda *_: None)
    assert "not over" in first_failure("pause_agent", "partition")


def test_an_agent_that_says_it_has_nothing_when_it_has_something_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every third time; an agent that always did would be given the same work for ever.
    asked, is_empty = count(1), AttemptRunner.is_empty.fget
    assert is_empty is not None
    monkeypatch.setattr(
        AttemptRunner, "is_empty", property(lambda runner: next(asked) % 3 == 0 or is_empty(runner))
    )
    assert "C02" in first_failure()


def test_without_faults_no_node_is_taken_for_silent() -> None:
    assert silences() == 0


def test_polls_that_are_no_sign_of_life_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.Fleet, "hear_poll", lambda *_: None)
    assert silences() > 0


def silences() -> int:
    """Of nodes in runs in which nothing goes wrong."""
    outcomes = [run_seed(seed, only=(), trace_lines=1) for seed in range(5)]
    assert [one.failure for one in outcomes if one.failure] == []
    return sum(
        count
        for one in outcomes
        for (kind, before, event), count in one.coverage.pairs.items()
        if (kind, before) == ("node", "READY") and event.endswith("-> SILENT")
    )


def test_submits_that_are_not_remembered_by_their_key_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteTransaction, "find_submission", lambda *_: None)
    monkeypatch.setattr(SqliteTransaction, "add_submission", lambda *_, **__: None)
    failure = first_failure()
    assert "P1" in failure or "I8" in failure


def test_replacements_that_come_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_due(policy: LeasePolicy, **_: Any) -> Any:
        return policy.shortest_lease

    def with_time_to_overlap(*arguments: Any, **more: Any) -> TaskSpec:
        task = a_random_task(*arguments, **more)
        return replace(task, run_for=timedelta(seconds=6)) if task.disconnect is no_overlap else task

    monkeypatch.setattr(fleet, "replace_due", replace_due)
    # It takes a node that is cut off while it runs what must not overlap, and another one that is idle then.
    no_overlap, a_random_task = DisconnectPolicy.NO_OVERLAP, users._a_random_task
    monkeypatch.setattr(users, "DisconnectPolicy", [no_overlap] * 30)
    monkeypatch.setattr(users, "_a_random_task", with_time_to_overlap)
    assert "C02" in first_failure("isolate", seeds=400)


def test_a_session_that_a_doubled_call_takes_from_its_node_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_is_said_again", lambda *_: False)
    assert "L7" in first_failure("be_lossy", "be_slow")
