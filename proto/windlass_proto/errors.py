"""The errors every side raises; each class says what the caller can do, each carries a stable code."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class WindlassError(Exception):
    """Something failed; the message says what, with which id, and what to do."""

    code = "INTERNAL"


class InvalidRequest(WindlassError):
    """The request is wrong and will stay wrong: change it."""

    code = "INVALID_REQUEST"


class NotFound(WindlassError):
    """There is no such thing, or it is not yours to see."""

    code = "NOT_FOUND"


class Conflict(WindlassError):
    """The thing is in a state that does not allow this: look at it again."""

    code = "CONFLICT"


class Unavailable(WindlassError):
    """Not now: try again after a pause."""

    code = "UNAVAILABLE"


class Overloaded(Unavailable):
    """Too much is asked at once: try again, not before `retry_after`."""

    code = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class NoRoom(Unavailable):
    """The coordinator's disk is full: nothing new is taken on until somebody has made room."""

    code = "NO_ROOM"


class Denied(WindlassError):
    """Who is calling may not do this, or is not known."""

    code = "DENIED"


class SessionLost(WindlassError):
    """The agent's session is not the current one of its node: open a new one."""

    code = "SESSION_LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a document."""

    path: str
    """Where: `tasks.count.instances`; "" = the document as a whole."""
    message: str
    """What is wrong and what would be right: `must be >= 1 (is 0)`."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidJob(InvalidRequest):
    """A job specification with all its problems."""

    code = "INVALID_JOB"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))
