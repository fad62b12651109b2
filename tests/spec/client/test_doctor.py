"""What `windlass doctor` makes of what a coordinator says."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from windlass.cli.doctor import judge_fleet
from windlass_proto import __version__
from windlass_proto.model.diagnosis import (
    COULD_NOT_LOOK,
    HEALTHY,
    PROBLEMS_FOUND,
    Finding,
    Health,
    as_lines,
    exit_code_of,
    good,
    note,
    problem,
    unknown,
)
from windlass_proto.model.ids import ClusterName, NodeId
from windlass_proto.model.states import NodeState
from windlass_proto.model.status import ClusterStatus, NodeStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLUSTER = ClusterStatus(name=ClusterName("default"), description="", nodes_ready=1, slots=2, created_at=NOW)
NODE = NodeStatus(
    node_id=NodeId("node-1"),
    name="big",
    cluster=ClusterName("default"),
    state=NodeState.READY,
    slots=2,
    live_attempts=0,
    cpu=2,
    memory_bytes=1 << 30,
    agent_version=__version__,
    joined_at=NOW,
    last_seen_at=NOW,
    containment="cgroup v2",
)


def judged(*nodes: NodeStatus, clusters: Sequence[ClusterStatus] = (CLUSTER,)) -> dict[str, Finding]:
    return {finding.what: finding for finding in judge_fleet(clusters, nodes, (), now=NOW)}


def test_a_fleet_that_works_is_healthy() -> None:
    assert exit_code_of(judged(NODE).values()) == HEALTHY


@pytest.mark.parametrize(
    ("node", "what", "health"),
    [
        (replace(NODE, state=NodeState.SILENT), "node.silent", Health.PROBLEM),
        (replace(NODE, state=NodeState.QUARANTINED), "node.quarantined", Health.PROBLEM),
        (replace(NODE, state=NodeState.DRAINED), "node.drained", Health.NOTE),
        (replace(NODE, containment="weak: process groups only"), "node.containment", Health.NOTE),
        (replace(NODE, agent_version="0.0.9"), "versions", Health.NOTE),
        (replace(NODE, last_seen_at=NOW + timedelta(hours=1)), "clock", Health.NOTE),
    ],
)
def test_what_is_odd_about_a_node_is_told(node: NodeStatus, what: str, health: Health) -> None:
    assert judged(NODE, node)[what].health is health


def test_without_a_node_that_takes_work_the_next_step_is_told() -> None:
    found = judged(replace(NODE, state=NodeState.DRAINED))
    assert "join-token" in found["nodes"].do
    assert exit_code_of(found.values()) == PROBLEMS_FOUND


def test_a_quarantined_nodes_advice_names_it() -> None:
    found = judged(replace(NODE, state=NodeState.QUARANTINED, reason="no disk"))
    assert found["node.quarantined"].says == "no disk"
    assert "windlass node resume big" in found["node.quarantined"].do


def test_a_problem_counts_more_than_what_could_not_be_looked_at() -> None:
    fine, odd = good("a", "", ""), note("b", "", "")
    hidden, wrong = unknown("c", "", ""), problem("d", "", "", do="mend")
    assert exit_code_of([fine, odd]) == HEALTHY
    assert exit_code_of([fine, hidden]) == COULD_NOT_LOOK
    assert exit_code_of([hidden, wrong]) == PROBLEMS_FOUND


def test_people_get_a_line_for_each_finding_and_one_for_what_to_do() -> None:
    assert as_lines([good("disk", "/data", "fine"), problem("clock", "here", "late", do="set it")]) == [
        "good    disk: fine (/data)",
        "problem clock: late (here)",
        "        -> set it",
    ]
