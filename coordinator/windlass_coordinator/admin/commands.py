"""The verbs of `windlass-coordinator`; without a verb it serves."""

import argparse
from collections.abc import Sequence
from types import ModuleType

from windlass_coordinator.admin import backup, doctor, restore, restored
from windlass_coordinator.admin.console import Console

VERBS: dict[str, tuple[ModuleType, str]] = {
    "backup": (backup, "Copy the database (and logs) of a coordinator, which may be running."),
    "restore": (restore, "Make a new data directory from a backup."),
    "doctor": (doctor, "Say what is wrong with a data directory, without changing anything in it."),
    "restored": (restored, "Say that a database was restored by its own tools."),
}


def run_verb(arguments: Sequence[str]) -> int:
    """Runs `arguments[0]`, which is one of VERBS. Raises what the verb raises."""
    module, description = VERBS[arguments[0]]
    parser = argparse.ArgumentParser(
        prog=f"windlass-coordinator {arguments[0]}", description=description, allow_abbrev=False
    )
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(arguments[1:]), Console())
    return code
