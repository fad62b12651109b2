"""Commands that write down when they ran: a tiny static program, built from stamp.c."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import BenchFailed

_SOURCE = Path(__file__).with_name("stamp.c")
_SHELL_LINE = 'echo "$2 $(date +%s%N)" >> "$1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """How to start it. `note` says so when it is not the compiled one."""

    program: tuple[str, ...]
    note: str = ""

    def command(self, file: Path, tag: str) -> tuple[str, ...]:
        return (*self.program, str(file), tag)


def build_stamp(directory: Path) -> Stamp:
    """Without a C compiler a shell line stands in, which starts more processes and adds milliseconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        return Stamp(
            program=("/bin/sh", "-c", _SHELL_LINE, "stamp"),
            note="no C compiler here: the command is a shell line, which adds milliseconds of its own",
        )
    built = directory / "stamp"
    done = subprocess.run(
        [compiler, "-O2", "-static", "-o", str(built), str(_SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"{_SOURCE} does not compile:\n{done.stderr}")
    return Stamp(program=(str(built),))


def read_stamps(file: Path) -> dict[str, float]:
    """Seconds since the epoch, by tag."""
    found = {}
    for line in file.read_text(encoding="ascii").splitlines():
        tag, nanoseconds = line.split()
        found[tag] = int(nanoseconds) / 1e9
    return found
