"""`windlass store ls|cat|cp|rm`: files in object storage, by the storage profiles of this machine."""

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from windlass.cli import render
from windlass.cli.invocation import Invocation, pass_invocation
from windlass.cli.transfer_bar import progress
from windlass.quantities import format_size
from windlass.store import PlannedCopy, RemoteFiles, StoredObject, location_of
from windlass_proto.model.storage import OBJECT_SCHEMES


@click.group("store")
def store() -> None:
    """Look at, copy and remove files in object storage.

    \b
    Examples:
      windlass store ls
      windlass store cp data.txt oss://windlass/in/
      windlass store cat oss://windlass/out/result.json
    """


def _open(invocation: Invocation) -> RemoteFiles:
    return RemoteFiles(invocation.profile().storage())


@store.command("ls")
@click.argument("url", default="")
@click.option("-r", "--recursive", is_flag=True, help="Everything below, not one level.")
@render.json_option
@pass_invocation
def list_objects(invocation: Invocation, *, url: str, recursive: bool, as_json: bool) -> None:
    """List buckets, or what lies below URL.

    \b
    Examples:
      windlass store ls
      windlass store ls oss://windlass/out/
      windlass store ls -r oss://windlass/ --json
    """
    store = _open(invocation)
    if not url or url.rstrip("/").rstrip(":") in OBJECT_SCHEMES:
        scheme = url.partition(":")[0] or OBJECT_SCHEMES[0]
        found = [StoredObject(location=bucket, is_prefix=True) for bucket in store.buckets(scheme)]
    else:
        found = _matching(store, url, recursive=recursive)
    if as_json:
        render.print_json([_plain(one) for one in found])
        return
    rows = [
        (
            "-" if one.is_prefix else format_size(one.size_bytes),
            render.local_time(one.modified_at),
            str(one.location),
        )
        for one in found
    ]
    render.print_table(("size", "changed", "url"), rows)


def _matching(store: RemoteFiles, url: str, *, recursive: bool) -> list[StoredObject]:
    """`ls oss://b/out` means the directory out/ too, when nothing else was meant."""
    location = location_of(url)
    found = list(store.listing(location, recursive=recursive))
    if [str(one.location) for one in found] == [f"{location}/"]:
        return list(store.listing(location_of(f"{location}/"), recursive=recursive))
    return found


def _plain(one: StoredObject) -> dict[str, object]:
    return {
        "url": str(one.location),
        "size_bytes": None if one.is_prefix else one.size_bytes,
        "modified_at": one.modified_at,
    }


@store.command("cat")
@click.argument("urls", nargs=-1, required=True)
@pass_invocation
def print_objects(invocation: Invocation, *, urls: tuple[str, ...]) -> None:
    """Print objects, byte for byte.

    \b
    Examples:
      windlass store cat oss://windlass/out/result.json
    """
    store = _open(invocation)
    output = sys.stdout.buffer
    for url in urls:
        for piece in store.read(location_of(url)):
            output.write(piece)
    output.flush()


@store.command("cp")
@click.argument("source")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="A folder, or everything below a URL.")
@pass_invocation
def copy_objects(invocation: Invocation, *, source: str, target: str, recursive: bool) -> None:
    """Copy files to or from object storage.

    \b
    Examples:
      windlass store cp data.txt oss://windlass/in/
      windlass store cp -r ./inputs oss://windlass/in/
      windlass store cp oss://windlass/out/result.json .
      windlass store cp -r oss://windlass/out/ ./results
    """
    store = _open(invocation)
    planned = store.plan_copy(source, target, recursive=recursive)
    _copy_all(store, planned)
    total = sum(step.size_bytes for step in planned)
    click.echo(f"{len(planned)} {'file' if len(planned) == 1 else 'files'}, {format_size(total)}", err=True)


def _copy_all(store: RemoteFiles, planned: Iterable[PlannedCopy]) -> None:
    steps = list(planned)
    with progress() as bar:
        moving = bar.add_task("copying", total=sum(step.size_bytes for step in steps))
        for step in steps:
            name = step.source.name if isinstance(step.source, Path) else step.source.key.rpartition("/")[2]
            bar.update(moving, description=name)
            store.copy(step, progress=lambda count: bar.advance(moving, count))


@store.command("rm")
@click.argument("urls", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Everything below URL.")
@pass_invocation
def remove_objects(invocation: Invocation, *, urls: tuple[str, ...], recursive: bool) -> None:
    """Remove objects.

    \b
    Examples:
      windlass store rm oss://windlass/in/data.txt
      windlass store rm -r oss://windlass/out/
    """
    store = _open(invocation)
    removed = sum(store.remove(location_of(url), recursive=recursive) for url in urls)
    click.echo(f"removed {removed} {'object' if removed == 1 else 'objects'}")
