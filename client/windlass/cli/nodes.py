"""`windlass nodes`, `clusters`, `cluster`, `join-token`."""

import re
import sys
from datetime import timedelta

import click

from windlass.cli import render
from windlass.cli.invocation import Invocation, pass_invocation
from windlass.cli.options import DURATION
from windlass.quantities import format_size
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName
from windlass_proto.model.status import NodeStatus


@click.command("nodes")
@click.option("--cluster", default="", help="Only this cluster's.")
@click.option("--all", "include_gone", is_flag=True, help="Also those that are gone for good.")
@render.json_option
@pass_invocation
def list_nodes(invocation: Invocation, *, cluster: str, include_gone: bool, as_json: bool) -> None:
    """List the machines that run the work.

    \b
    Examples:
      windlass nodes
      windlass nodes --cluster gpu --json
    """
    nodes = invocation.run(lambda client: client.nodes(cluster, include_gone=include_gone))
    if as_json:
        render.print_json(nodes)
        return
    columns = (
        "node",
        "cluster",
        "state",
        "slots",
        "busy",
        "cores",
        "memory",
        "gpus",
        "last seen",
        "containment",
    )
    rows = [
        (
            node.name or node.node_id,
            node.cluster,
            render.state_text(node.state) + (f" ({node.reason})" if node.reason else ""),
            str(node.slots),
            str(node.live_attempts),
            f"{node.cpu:g}",
            format_size(node.memory_bytes),
            str(node.gpus),
            render.local_time(node.last_seen_at),
            short_containment(node.containment),
        )
        for node in nodes
    ]
    render.print_table(columns, rows)


def short_containment(text: str) -> str:
    """`weak: process groups only (why)` -> `weak`, `cgroup v2, no limits (why); dev isolation (why)` ->
    `cgroup v2, no limits; dev isolation`.

    The rest explains, and is in the JSON."""
    parts = re.sub(r" \(.*?\)(?=; |$)", "", text).split("; ")
    return "; ".join(part.partition(": ")[0] for part in parts)


@click.group("node")
def node_group() -> None:
    """Drain and resume nodes; `windlass nodes` lists them.

    \b
    Examples:
      windlass node drain render-07 --within 30m
      windlass node resume render-07
    """


@node_group.command("drain")
@click.argument("node")
@click.option("--within", type=DURATION, help="Such as 30m: what still runs then is given to others.")
@render.json_option
@pass_invocation
def drain_node(invocation: Invocation, *, node: str, within: timedelta | None, as_json: bool) -> None:
    """Give a node no new work, so that it can be switched off once it is DRAINED.

    NODE is its id or its name. What runs may finish; with --within 0s it is given to other nodes at once.
    That costs no retries of yours.

    \b
    Examples:
      windlass node drain render-07
      windlass node drain render-07 --within 30m
      windlass node drain render-07 --within 0s --json
    """
    _print_node(invocation.run(lambda client: client.drain_node(node, within=within)), as_json=as_json)


@node_group.command("resume")
@click.argument("node")
@render.json_option
@pass_invocation
def resume_node(invocation: Invocation, *, node: str, as_json: bool) -> None:
    """Let a draining, drained or quarantined node take work again.

    \b
    Examples:
      windlass node resume render-07
      windlass node resume render-07 --json
    """
    _print_node(invocation.run(lambda client: client.resume_node(node)), as_json=as_json)


def _print_node(node: NodeStatus, *, as_json: bool) -> None:
    if as_json:
        render.print_json(node)
        return
    busy = f", {node.live_attempts} running" if node.live_attempts else ""
    click.echo(f"{node.name or node.node_id}: {render.state_text(node.state)}{busy}")


@click.command("clusters")
@render.json_option
@pass_invocation
def list_clusters(invocation: Invocation, *, as_json: bool) -> None:
    """List the clusters: groups of nodes with a queue of their own.

    \b
    Examples:
      windlass clusters
      windlass clusters --json
    """
    clusters = invocation.run(lambda client: client.clusters())
    if as_json:
        render.print_json(clusters)
        return
    rows = [
        (cluster.name, str(cluster.nodes_ready), str(cluster.slots), cluster.description)
        for cluster in clusters
    ]
    render.print_table(("cluster", "nodes ready", "slots", "description"), rows)


@click.group("cluster")
def cluster_group() -> None:
    """Create and delete clusters; `windlass clusters` lists them.

    \b
    Examples:
      windlass cluster create gpu --description "the two machines with cards"
      windlass submit "python3 train.py" --cluster gpu
      windlass cluster delete gpu
    """


@cluster_group.command("create")
@click.argument("name")
@click.option("--description", default="", help="For people.")
@render.json_option
@pass_invocation
def create_cluster(invocation: Invocation, *, name: str, description: str, as_json: bool) -> None:
    """Create a cluster: nodes join it with a token of its own, and jobs name it with --cluster.

    \b
    Examples:
      windlass cluster create gpu
      windlass cluster create gpu --description "the two machines with cards" --json
    """
    cluster = invocation.run(lambda client: client.create_cluster(name, description=description))
    if as_json:
        render.print_json(cluster)
        return
    click.echo(f"{cluster.name} created")
    if sys.stdout.isatty():
        click.echo(f"its nodes join with: windlass join-token --cluster {cluster.name}", err=True)


@cluster_group.command("delete")
@click.argument("name")
@render.json_option
@pass_invocation
def delete_cluster(invocation: Invocation, *, name: str, as_json: bool) -> None:
    """Delete a cluster that has no nodes and no work.

    \b
    Examples:
      windlass cluster delete gpu
      windlass cluster delete gpu --json
    """
    invocation.run(lambda client: client.delete_cluster(name))
    if as_json:
        render.print_json({"name": name, "deleted": True})
        return
    click.echo(f"{name} deleted")


@click.command("join-token")
@click.option("--cluster", default=DEFAULT_CLUSTER, show_default=True, help="The cluster that agents join.")
@click.option("--uses", default=1, show_default=True, help="How many agents may join with it.")
@click.option("--valid-for", type=DURATION, default="15m", show_default=True, help="Such as 15m or 24h.")
@render.json_option
@pass_invocation
def make_join_token(
    invocation: Invocation, *, cluster: str, uses: int, valid_for: timedelta, as_json: bool
) -> None:
    """Print a secret with which agents on other machines join.

    \b
    Examples:
      windlass join-token > token
      windlass join-token --cluster big --uses 10 --valid-for 24h
    """
    token, expires_at = invocation.run(
        lambda client: client.create_join_token(ClusterName(cluster), uses=uses, valid_for=valid_for)
    )
    if as_json:
        render.print_json({"token": token, "expires_at": expires_at})
        return
    click.echo(token)
    click.echo(f"valid until {render.local_time(expires_at)}", err=True)
