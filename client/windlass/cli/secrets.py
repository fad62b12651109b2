"""`windlass secret`: values come from a file, standard input or a prompt.

Never from the command line, where every user of the machine could read them.
"""

import sys
from pathlib import Path

import click

from windlass.cli import render
from windlass.cli.invocation import Invocation, pass_invocation
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.secrets import Login, SecretKind, read_login, read_storage
from windlass_proto.model.storage import StorageProfile

_STANDARD_INPUT = "-"


@click.group("secret")
def secret_group() -> None:
    """Store credentials that jobs name: of object stores and of container registries.

    \b
    Examples:
      windlass secret put research
      windlass secret put registry --kind login --from login.json
      windlass secret list
      windlass secret delete research
    """


@secret_group.command("put")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in SecretKind]),
    default=SecretKind.STORAGE.value,
    show_default=True,
    help="What it opens.",
)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Its values as JSON; - = standard input. Else they are asked for.",
)
@render.json_option
@pass_invocation
def put_secret(invocation: Invocation, *, name: str, kind: str, source: str | None, as_json: bool) -> None:
    """Store a secret under NAME, in place of one of that name.

    A storage has endpoint, region, access_key, secret_key, path_style; a login has username and password.
    Values are never shown again.

    \b
    Examples:
      windlass secret put research
      windlass secret put research --from keys.json
      pass show registry | windlass secret put registry --kind login --from -
    """
    wanted = SecretKind(kind)
    value = _asked(wanted) if source is None else _read(wanted, source)
    status = invocation.run(lambda client: client.put_secret(name, value))
    if as_json:
        render.print_json(status)
        return
    click.echo(f"{status.name} stored")


@secret_group.command("list")
@render.json_option
@pass_invocation
def list_secrets(invocation: Invocation, *, as_json: bool) -> None:
    """List what is stored; no values.

    \b
    Examples:
      windlass secret list
      windlass secret list --json
    """
    secrets = invocation.run(lambda client: client.secrets())
    if as_json:
        render.print_json(secrets)
        return
    rows = [(secret.name, secret.kind.value, render.local_time(secret.changed_at)) for secret in secrets]
    render.print_table(("secret", "kind", "changed"), rows)


@secret_group.command("delete")
@click.argument("name")
@render.json_option
@pass_invocation
def delete_secret(invocation: Invocation, *, name: str, as_json: bool) -> None:
    """Delete a secret. Attempts that still need it fail.

    \b
    Examples:
      windlass secret delete research
      windlass secret delete research --json
    """
    invocation.run(lambda client: client.delete_secret(name))
    if as_json:
        render.print_json({"name": name, "deleted": True})
        return
    click.echo(f"{name} deleted")


def _read(kind: SecretKind, source: str) -> StorageProfile | Login:
    """Nothing of the file is repeated in what is said of it."""
    try:
        document = sys.stdin.buffer.read() if source == _STANDARD_INPUT else Path(source).read_bytes()
    except OSError as problem:
        raise InvalidRequest(f"{source}: {problem.strerror}") from problem
    try:
        return read_storage(document) if kind is SecretKind.STORAGE else read_login(document)
    except ValueError as problem:
        where = "standard input" if source == _STANDARD_INPUT else source
        raise InvalidRequest(f"{where}: {problem}") from None


def _asked(kind: SecretKind) -> StorageProfile | Login:
    if not sys.stdin.isatty():
        raise InvalidRequest("there is nobody to ask: give the values as JSON with --from FILE, or --from -")
    if kind is SecretKind.LOGIN:
        return Login(username=click.prompt("username"), password=click.prompt("password", hide_input=True))
    return StorageProfile(
        endpoint=click.prompt("endpoint (empty = the provider's own)", default="", show_default=False),
        region=click.prompt("region", default="us-east-1"),
        access_key=click.prompt("access key"),
        secret_key=click.prompt("secret key", hide_input=True),
        path_style=click.confirm("bucket in the path (no = in the host name, as in clouds)", default=True),
    )
