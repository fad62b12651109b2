"""`windlass-coordinator restored`: for a database that was restored by its own tools (pg_dump, PITR)."""

import argparse
from pathlib import Path

from windlass_coordinator.admin.console import Console
from windlass_coordinator.admin.restore import raise_incarnation
from windlass_coordinator.first_start import LOCK_FILE, is_held
from windlass_coordinator.stores import open_store
from windlass_proto.errors import Conflict, NotFound

_SQLITE = "sqlite:///"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="URL", required=True, help="the restored database, which no coordinator uses yet"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Begins an incarnation; without it fences that were issued after the backup would be issued again."""
    if arguments.store.startswith(_SQLITE):
        file = Path(arguments.store.removeprefix(_SQLITE))
        if not file.is_file():
            raise NotFound(f"there is no database {file}")
        if is_held(file.with_name(LOCK_FILE)):
            raise Conflict(f"a coordinator runs on {file}: stop it first")
    store = open_store(arguments.store)
    try:
        previous, incarnation = raise_incarnation(store)
    finally:
        store.close()
    console.print(f"incarnation {incarnation} (was {previous}): coordinators may be started")
    return 0
