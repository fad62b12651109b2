"""Somebody at a command line, and a look at what is left when they have gone."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass import processes
from windlass.laptop import Laptop
from windlass.processes import ProcessIdentity

DEADLINE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody at a command line, whose data directory is `data`."""

    data: Path

    def types(self, *arguments: str, cwd: Path | None = None, stdin: str | None = None) -> Ended:
        """Runs `windlass ARGUMENTS` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "windlass.cli.main", *arguments],
            cwd=cwd or self.data.parent,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    def watches(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begins `windlass ARGUMENTS`; its standard output can be read line by line while it runs."""
        return subprocess.Popen(
            [sys.executable, "-m", "windlass.cli.main", *arguments],
            cwd=self.data.parent,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def gets(self, *arguments: str, cwd: Path | None = None) -> str:
        """What `windlass ARGUMENTS` prints; it must succeed."""
        ended = self.types(*arguments, cwd=cwd)
        assert ended.code == 0, ended
        return ended.out

    def gets_json(self, *arguments: str) -> Any:
        return json.loads(self.gets(*arguments, "--json"))

    def environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
        return {**kept, "WINDLASS_DATA": str(self.data)}

    @property
    def laptop(self) -> Laptop:
        return Laptop(self.data)

    def child(self, name: str) -> ProcessIdentity:
        """One of the programs that `windlass up` runs now."""
        return self.laptop.read_state().children[name]

    def goes_up(self, *, agents: int = 2) -> Any:
        return self.gets_json("up", "--detach", "--agents", str(agents), "--slots", "2")

    def goes_down(self) -> str:
        return self.gets("down")


def left_behind(data: Path) -> list[list[str]]:
    """Arguments of processes that have to do with a data directory."""
    found: list[list[str]] = []

    def fits(arguments: list[str]) -> bool:
        if any(str(data) in argument for argument in arguments):
            found.append(arguments)
        return False

    processes.matching(fits)
    return found
