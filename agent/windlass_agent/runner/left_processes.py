"""Processes that a keeper left behind: ended from outside, as often as it takes."""

from collections.abc import Iterable

from windlass_agent.core.run_plan import StartRecord
from windlass_agent.runner.cgroups import Containment
from windlass_agent.runner.sessions import kill_session, session_members


class LeftProcesses:
    """Of one slot: all in its group and, where there is none, the sessions of its commands."""

    def __init__(self, number: int, containment: Containment) -> None:
        self._number, self._containment = number, containment
        self._strays: list[StartRecord] = []

    def note(self, strays: Iterable[StartRecord]) -> None:
        """Commands of a dead keeper, to be found by their session where there is no group."""
        self._strays += strays

    def end(self) -> bool:
        """Whether nothing is left; signals what is. To be called again until it is."""
        if self._is_gone():
            self._strays.clear()
            return True
        self._containment.kill_group(self._number)
        for stray in self._strays:
            kill_session(stray.pid, stray.start_ticks)
        return False

    def _is_gone(self) -> bool:
        return self._containment.is_empty(self._number) and not any(
            session_members(stray.pid, stray.start_ticks) for stray in self._strays
        )
