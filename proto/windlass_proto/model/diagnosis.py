"""What a doctor says of a system: each thing that was looked at, and what to do about what is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What came of looking at one thing."""

    GOOD = "good"
    NOTE = "note"
    """Nothing is wrong; a person may want to know."""
    PROBLEM = "problem"
    """Something must be done."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    health: Health
    what: str
    """Stable, for programs: `database.whole`."""
    where: str
    says: str
    do: str = ""
    """What to do, "" when nothing is."""


HEALTHY, PROBLEMS_FOUND, COULD_NOT_LOOK = 0, 1, 2
"""Exit codes of every doctor."""


def exit_code_of(findings: Iterable[Finding]) -> int:
    """A problem counts more than what could not be looked at."""
    found = {finding.health for finding in findings}
    if Health.PROBLEM in found:
        return PROBLEMS_FOUND
    return COULD_NOT_LOOK if Health.UNKNOWN in found else HEALTHY


def as_lines(findings: Iterable[Finding]) -> list[str]:
    """For people: one line each, and one more with what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.health:8}{finding.what}: {finding.says} ({finding.where})")
        if finding.do:
            lines.append(f"        -> {finding.do}")
    return lines


def good(what: str, where: object, says: str) -> Finding:
    return Finding(health=Health.GOOD, what=what, where=str(where), says=says)


def note(what: str, where: object, says: str, *, do: str = "") -> Finding:
    return Finding(health=Health.NOTE, what=what, where=str(where), says=says, do=do)


def problem(what: str, where: object, says: str, *, do: str) -> Finding:
    return Finding(health=Health.PROBLEM, what=what, where=str(where), says=says, do=do)


def unknown(what: str, where: object, says: str, *, do: str = "") -> Finding:
    return Finding(health=Health.UNKNOWN, what=what, where=str(where), says=says, do=do)
