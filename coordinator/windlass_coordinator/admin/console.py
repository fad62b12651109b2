"""What an operator's command says: words or JSON on standard output, progress on a terminal."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any


class Console:
    """Standard output and standard error."""

    def print(self, line: str) -> None:
        """For people."""
        print(line)

    def print_json(self, report: Any) -> None:  # Any: every report is a dataclass of its own
        """For programs: one document."""
        print(json.dumps(asdict(report), indent=2, default=_as_text))

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Shows how far it is; says nothing where nobody watches."""
        if not sys.stderr.isatty():
            return lambda _, __: None

        def show(done: int, total: int) -> None:
            share = 100 if total == 0 else 100 * done // total
            print(f"\r{what}: {share} %", end="" if done < total else "\n", file=sys.stderr, flush=True)

        return show


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} has no form in JSON")
