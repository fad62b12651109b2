"""`windlass doctor`: does this profile lead to a coordinator that can run jobs; if not, what to do next."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import click

from windlass.cli import render
from windlass.cli.invocation import Invocation, pass_invocation
from windlass.client import Client
from windlass.profile import Profile
from windlass_proto import __version__
from windlass_proto.errors import Denied, Unavailable, WindlassError
from windlass_proto.model.diagnosis import (
    HEALTHY,
    Finding,
    Health,
    as_lines,
    exit_code_of,
    good,
    note,
    problem,
    unknown,
)
from windlass_proto.model.states import JobState, NodeState
from windlass_proto.model.status import ClusterStatus, JobStatus, NodeStatus

_CLOCKS_MAY_DIFFER = timedelta(seconds=30)
_JOBS_LOOKED_AT = 200


@click.command("doctor")
@render.json_option
@pass_invocation
def doctor(invocation: Invocation, *, as_json: bool) -> None:
    """Look for what keeps jobs from running: profile, coordinator, token, nodes.

    Exit codes: 0 = healthy, 1 = problems, 2 = could not look. For damaged data there is
    `windlass-coordinator doctor`, for one machine `windlass-agent doctor`.

    \b
    Examples:
      windlass doctor
      windlass doctor --json
    """
    findings = list(_diagnose(invocation))
    code = exit_code_of(findings)
    if as_json:
        render.print_json({"healthy": code == HEALTHY, "findings": findings})
    else:
        for line in as_lines(findings):
            click.echo(line)
    sys.exit(code)


def _diagnose(invocation: Invocation) -> Iterator[Finding]:
    try:
        profile = invocation.profile()
    except WindlassError as error:
        yield unknown("profile", "", str(error), do="run `windlass up`, or name a profile with --profile")
        return
    yield good("profile", profile.coordinator, "it names a coordinator")
    yield _storage(profile)
    try:
        clusters, nodes, jobs = invocation.run(_look)
    except Denied as error:
        yield problem(
            "token",
            profile.token_file or "no token_file in the profile",
            str(error),
            do="copy the coordinator's admin.token to the token_file of the profile",
        )
        return
    except Unavailable as error:
        yield problem(
            "coordinator",
            profile.coordinator,
            str(error),
            do="is it running there? `windlass-coordinator doctor --data DIR` on its machine tells; "
            "is the address reachable from here?",
        )
        return
    except WindlassError as error:
        yield unknown("coordinator", profile.coordinator, str(error))
        return
    yield good("coordinator", profile.coordinator, "it answers, and knows our token")
    yield from judge_fleet(clusters, nodes, jobs, now=datetime.now(UTC))


async def _look(client: Client) -> tuple[tuple[ClusterStatus, ...], tuple[NodeStatus, ...], list[JobStatus]]:
    jobs: list[JobStatus] = []
    async for job in client.list(states=(JobState.WAITING, JobState.RUNNING)):
        jobs.append(job)
        if len(jobs) >= _JOBS_LOOKED_AT:
            break
    return await client.clusters(), await client.nodes(), jobs


def _storage(profile: Profile) -> Finding:
    try:
        known = sorted(profile.storage().by_scheme)
    except WindlassError as error:
        return problem("storage", profile.storage_file or "", str(error), do="mend or remove storage_file")
    if not known:
        return note("storage", "storage_file", "no object store is known: packages cannot be uploaded")
    return good("storage", profile.storage_file or "", f"profiles for {', '.join(known)}")


def judge_fleet(
    clusters: Sequence[ClusterStatus],
    nodes: Sequence[NodeStatus],
    jobs: Sequence[JobStatus],
    *,
    now: datetime,
) -> Iterator[Finding]:
    """What the coordinator says, judged; `now` by this machine's clock."""
    for node in nodes:
        found = _judge_node(node)
        if found is not None:
            yield found
    for cluster in clusters:
        yield _judge_cluster(cluster)
    ready = [node for node in nodes if node.state is NodeState.READY]
    if not ready:
        yield problem(
            "nodes",
            "all clusters",
            f"no node takes work, and {len(jobs)} jobs have not ended",
            do="start agents: `windlass join-token > token`, then windlass-agent --join-token-file token ...",
        )
    other = sorted({node.agent_version for node in ready} - {__version__})
    if other:
        yield note("versions", "nodes", f"agents of {', '.join(other)}; this command is {__version__}")
    else:
        yield good("versions", "nodes", f"all of {__version__}")
    yield from _judge_clock(ready, now)


def _judge_node(node: NodeStatus) -> Finding | None:
    name = node.name or node.node_id
    match node.state:
        case NodeState.SILENT:
            return problem(
                "node.silent",
                name,
                f"it has not been heard for a while; {node.live_attempts} attempts may run there",
                do="look at the machine and its agent's log; `windlass-agent doctor` there tells more",
            )
        case NodeState.QUARANTINED:
            return problem(
                "node.quarantined",
                name,
                node.reason or "it failed to prepare several attempts in a row",
                do=f"mend it (`windlass-agent doctor` there), then `windlass node resume {name}`",
            )
        case NodeState.DRAINING | NodeState.DRAINED:
            return note("node.drained", name, node.reason or f"it is {node.state}: takes no work")
        case NodeState.READY if node.containment.startswith("weak"):
            return note("node.containment", name, node.containment)
    return None


def _judge_cluster(cluster: ClusterStatus) -> Finding:
    if cluster.nodes_ready == 0:
        return note(
            "cluster.empty",
            cluster.name,
            "no node of it takes work: its jobs wait",
            do=f"windlass join-token --cluster {cluster.name}, and start an agent with it",
        )
    return good("cluster", cluster.name, f"{cluster.nodes_ready} nodes, {cluster.slots} slots")


def _judge_clock(nodes: Sequence[NodeStatus], now: datetime) -> Iterator[Finding]:
    """A node that was seen in our future tells that this clock is behind the coordinator's."""
    seen = [node.last_seen_at for node in nodes if node.last_seen_at is not None]
    if not seen:
        return
    ahead = max(seen) - now
    if ahead > _CLOCKS_MAY_DIFFER:
        yield Finding(
            health=Health.NOTE,
            what="clock",
            where="this machine",
            says=f"it is {ahead.total_seconds():.0f} s behind the coordinator's",
            do="nothing depends on it here but the times that are shown; NTP mends it",
        )
    else:
        yield good("clock", "this machine", "it is not behind the coordinator's")
