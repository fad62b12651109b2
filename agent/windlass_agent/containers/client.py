"""Runs an engine's program for the agent, in a thread: with a deadline, and until the attempt is stopped."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from windlass_agent.containers.base import ContainerEngine, EngineUnavailable

_LOOK_EVERY_S = 0.2
_SAID_CHARS = 300
_VERBS = frozenset({"version", "info", "rm", "ps", "login", "pull", "image", "load", "import", "tag", "rmi"})
"""For messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def why(self) -> str:
        """The line that says most: the last one that speaks of an error, else the last."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")]
        return (errors or lines or [f"exit code {self.code}"])[-1][-_SAID_CHARS:]


def never() -> bool:
    return False


def call(
    engine: ContainerEngine,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    given: bytes = b"",
    is_cancelled: Callable[[], bool] = never,
) -> Answer:
    """Raises EngineUnavailable when it cannot be started, or does not end in time, or was cancelled."""
    what = f"{engine.name} {next((word for word in arguments if word in _VERBS), '')}"
    give_up_at = time.monotonic() + timeout_s
    try:
        child = subprocess.Popen(
            [*engine.program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(engine.env),
            cwd="/",
        )
    except OSError as problem:
        raise EngineUnavailable(f"{what} could not be started: {problem.strerror}") from problem
    with child:
        data: bytes | None = given
        while time.monotonic() < give_up_at and not is_cancelled():
            with suppress(subprocess.TimeoutExpired):
                out, err = child.communicate(data, timeout=_LOOK_EVERY_S)
                return Answer(code=child.returncode, out=_text(out), err=_text(err))
            data = None
        child.kill()
        child.communicate()
    raise EngineUnavailable(f"{what} was ended: it took longer than it may")


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
