"""`windlass nodes`, `windlass clusters`."""

import click

from windlass.cli import render
from windlass.cli.session import Session, pass_session
from windlass.quantities import format_size


@click.command("nodes")
@click.option("--cluster", default="", help="Only this cluster's.")
@click.option("--all", "include_gone", is_flag=True, help="Also those that are gone for good.")
@render.json_option
@pass_session
def list_nodes(session: Session, *, cluster: str, include_gone: bool, as_json: bool) -> None:
    """List the machines that run the work.

    \b
    Examples:
      windlass nodes
      windlass nodes --cluster gpu --json
    """
    nodes = session.run(lambda client: client.nodes(cluster, include_gone=include_gone))
    if as_json:
        render.print_json(nodes)
        return
    columns = ("node", "cluster", "state", "slots", "busy", "cores", "memory", "last seen", "containment")
    rows = [
        (
            node.name or node.node_id,
            node.cluster,
            render.state_text(node.state),
            str(node.slots),
            str(node.live_attempts),
            f"{node.cpu:g}",
            format_size(node.memory_bytes),
            render.local_time(node.last_seen_at),
            node.containment,
        )
        for node in nodes
    ]
    render.print_table(columns, rows)


@click.command("clusters")
@render.json_option
@pass_session
def list_clusters(session: Session, *, as_json: bool) -> None:
    """List the clusters: groups of nodes with a queue of their own.

    \b
    Examples:
      windlass clusters
      windlass clusters --json
    """
    clusters = session.run(lambda client: client.clusters())
    if as_json:
        render.print_json(clusters)
        return
    rows = [
        (cluster.name, str(cluster.nodes_ready), str(cluster.slots), cluster.description)
        for cluster in clusters
    ]
    render.print_table(("cluster", "nodes ready", "slots", "description"), rows)
