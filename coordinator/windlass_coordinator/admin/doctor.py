"""`windlass-coordinator doctor`: says what is wrong with a data directory; changes nothing in it."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from windlass_coordinator.admin.console import Console
from windlass_coordinator.admin.look_at_database import look_at_database
from windlass_coordinator.admin.look_at_files import look_at_files
from windlass_coordinator.first_start import LOCK_FILE, is_held
from windlass_proto.errors import NotFound, Unavailable
from windlass_proto.model.diagnosis import HEALTHY, Finding, as_lines, exit_code_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", required=True, type=Path, help="the coordinator's data")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Exit code 0 = healthy, 1 = problems, 2 = could not look."""
    findings = diagnose(arguments.data)
    code = exit_code_of(findings)
    if arguments.json:
        console.print(
            json.dumps({"healthy": code == HEALTHY, "findings": [asdict(f) for f in findings]}, indent=2)
        )
        return code
    for line in as_lines(findings):
        console.print(line)
    return code


def diagnose(data: Path) -> list[Finding]:
    """Everything that can be told from outside. Raises NotFound without a directory, Unavailable when it may
    not be read."""
    if not data.is_dir():
        raise NotFound(f"there is no directory {data}: name the data directory of a coordinator")
    try:
        list(data.iterdir())
        is_running = is_held(data / LOCK_FILE)
    except OSError as error:
        raise Unavailable(
            f"{data} cannot be read ({error.strerror}): run this as the coordinator's user"
        ) from error
    return [*look_at_files(data, is_running=is_running), *look_at_database(data, is_running=is_running)]
