"""When a healed run is over, and what keeps it from being over (L1-L8)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

_NOBODYS_STATES = ("JOINING", "GONE", "DELETED")
_ENDED = "('SUCCEEDED', 'FAILED', 'STOPPED')"


def why_not_quiet(simulation: "Simulation") -> str:
    """Empty when everything has ended and every node is at rest."""
    if not simulation.coordinator.is_alive:
        return "the coordinator is down"
    if simulation.user.open_calls:
        return f"{simulation.user.open_calls} submissions are not answered"
    rows = simulation.coordinator.store.rows
    checks = (
        ("L1: jobs", f"SELECT job_id, state FROM jobs WHERE state NOT IN {_ENDED}"),
        (
            "L2: detached attempts",
            "SELECT task_key, idx, attempt FROM attempts WHERE detached AND ended_at IS NULL",
        ),
        (
            "L3: live attempts",
            "SELECT task_key, idx, attempt, state, node_key FROM attempts WHERE ended_at IS NULL",
        ),
        ("L7: silent nodes", "SELECT node_key, name FROM nodes WHERE state = 'SILENT'"),
    )
    for what, query in checks:
        found = rows(query)
        if found:
            return f"{what} {found[:5]}"
    identities = {node.disk.identity.node_key for node in simulation.nodes}
    for node_key, name, state in rows("SELECT node_key, name, state FROM nodes"):
        if node_key not in identities and state not in _NOBODYS_STATES:
            return f"L7: the machine of {name} ({node_key}) was wiped, and its node is taken for {state}"
    for node in simulation.nodes:
        why = _why_not_given_up(node, rows) if node.is_gone else _why_not_at_rest(node)
        if why:
            return why
    return ""


def _why_not_given_up(node, rows) -> str:  # type: ignore[no-untyped-def]  # Node, and what reads the store
    """A coordinator that was started again and again has not noticed yet that the machine is no more."""
    state = "SELECT state FROM nodes WHERE name = ? AND state NOT IN ('JOINING', 'GONE', 'DELETED')"
    return f"L7: {node.name} is no more, and taken for {found}" if (found := rows(state, node.name)) else ""


def _why_not_at_rest(node) -> str:  # type: ignore[no-untyped-def]  # Node
    if not node.agent.is_alive or node.agent.session is None:
        return f"L7: {node.name} has no session ({node.denials[-1:] or 'not refused'})"
    if len(node.agent.runner._table):
        return f"L4: {node.name} keeps {[attempt.ref for attempt in node.agent.runner._table][:3]}"
    if node.agent.intents.live:
        return f"L4: {node.name} keeps intents of {list(node.agent.intents.live)[:3]}"
    if node.disk.leftovers():
        return f"L4: {node.name} keeps directories {node.disk.leftovers()[:3]}"
    if node.commands:
        return f"L4: {node.name} runs {[command.ref for command in node.commands][:3]}"
    return ""
