"""Starts the programs that are measured and ends them by their process id, whatever happens in between."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.noise import cpu_s, rss_kib
from windlass.processes import identity_of, with_descendants

REPOSITORY = Path(__file__).parents[1]
_GRACE_S = 20.0
_LOOK_EVERY_S = 0.005


class BenchFailed(Exception):
    """Something that is measured did not work; the message says what and shows its log."""


class Program:
    """A running process with a log of its own."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self.log = log
        self.pid = process.pid

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def below_cpu_s(self) -> float:
        """Of all that it started, directly or not."""
        own = identity_of(self.pid)
        return sum(cpu_s(one.pid) for one in with_descendants([own]) if one != own) if own else 0.0

    def rss_kib(self) -> int:
        return rss_kib(self.pid)

    def check(self) -> None:
        """Raises BenchFailed when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise BenchFailed(f"{self.log.stem} ended with code {code}:\n{self._tail()}")

    def tell(self, line: str) -> None:
        stdin = self._pipe(self._process.stdin)
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise BenchFailed(f"{self.log.stem} has ended:\n{self._tail()}") from None

    def hear(self) -> str:
        """Its next line. Raises BenchFailed when it ends instead."""
        line = self._pipe(self._process.stdout).readline()
        if not line:
            self._process.wait(_GRACE_S)
            raise BenchFailed(f"{self.log.stem} ended with {self._process.returncode}:\n{self._tail()}")
        return line.strip()

    def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise ValueError(f"{self.log.stem} was started without pipes")
        return pipe

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def running(
    name: str, arguments: Sequence[str], *, directory: Path, talks: bool = False
) -> Iterator[Program]:
    """`python -m ARGUMENTS...`, ended at the end. What it says on stderr goes to NAME.log; `talks` keeps
    stdin and stdout for the conversation with it."""
    log = directory / f"{name}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else errors,
            stderr=errors,
            text=True,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.end()


def await_condition(what: str, is_so: Callable[[], bool], *, within_s: float, program: Program) -> None:
    """Looks until it is so. Raises BenchFailed when the time is over or the program has ended."""
    give_up_at = time.monotonic() + within_s
    while not is_so():
        program.check()
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"{what}: not within {within_s:g} s; see {program.log}")
        time.sleep(_LOOK_EVERY_S)
