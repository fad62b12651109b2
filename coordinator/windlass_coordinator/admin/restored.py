"""`windlass-coordinator restored`: for a database that was restored by its own tools (pg_dump, PITR)."""

import argparse

from windlass_coordinator.admin.console import Console
from windlass_coordinator.admin.restore import raise_incarnation
from windlass_coordinator.stores import open_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="URL", required=True, help="the restored database, which no coordinator uses yet"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Begins an incarnation; without it fences that were issued after the backup would be issued again."""
    store = open_store(arguments.store)
    try:
        previous, incarnation = raise_incarnation(store)
    finally:
        store.close()
    console.print(f"incarnation {incarnation} (was {previous}): coordinators may be started")
    return 0
