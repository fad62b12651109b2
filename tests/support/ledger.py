"""The ledger of real runs: each command of a test appends a line when it starts and when it ends.

It is written by the commands themselves, past everything that Windlass records, so it can contradict it. A
line is `job task index attempt fence what pid uptime`; appends of one line are atomic.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

_SAY = (
    "say() { read -r up idle < /proc/uptime; printf '%s %s %s %s %s %s %s %s\\n' "
    '"$WINDLASS_JOB_ID" "$WINDLASS_TASK_NAME" "$WINDLASS_INDEX" "$WINDLASS_ATTEMPT" "$WINDLASS_FENCE" '
    '"$1" "$$" "$up" >> '
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. `what` is start, tick, or end:CODE."""

    job_id: str
    task: str
    index: int
    attempt: int
    fence: int
    what: str
    pid: int
    at_s: float
    """Seconds since the machine was booted, as the command saw it."""

    @property
    def instance(self) -> tuple[str, str, int]:
        return self.job_id, self.task, self.index

    @property
    def try_(self) -> tuple[str, str, int, int, int]:
        """Which attempt with which fence."""
        return self.job_id, self.task, self.index, self.attempt, self.fence

    @property
    def code(self) -> int:
        """Of an end."""
        return int(self.what.removeprefix("end:"))


class Ledger:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def recorded(self, body: str, *, ticks: bool = False) -> str:
        """A shell line that does `body` and writes down when it starts and with what it ends.

        With `ticks` it also writes a line ten times a second for as long as it runs, which shows until when
        a command lived that could not write its own end.
        """
        say = f"{_SAY}{shlex.quote(str(self.path))}; }}"
        if not ticks:
            return f'{say}; say start; ( {body} ); code=$?; say "end:$code"; exit $code'
        ticker = "( while :; do say tick; sleep 0.1; done ) & ticker=$!"
        end = 'kill $ticker; wait $ticker 2>/dev/null; say "end:$code"; exit $code'
        return f"{say}; say start; {ticker}; ( {body} ); code=$?; {end}"

    def entries(self) -> list[Entry]:
        """In the order in which they were written."""
        found = []
        for line in self.path.read_text().splitlines():
            job_id, task, index, attempt, fence, what, pid, up = line.split()
            found.append(
                Entry(
                    job_id=job_id,
                    task=task,
                    index=int(index),
                    attempt=int(attempt),
                    fence=int(fence),
                    what=what,
                    pid=int(pid),
                    at_s=float(up),
                )
            )
        return found

    def starts(self, job_id: str = "", *, task: str = "", index: int | None = None) -> list[Entry]:
        """All starts, or those of a job, a task, an instance."""
        return [
            entry
            for entry in self.entries()
            if entry.what == "start"
            and (not job_id or entry.job_id == job_id)
            and (not task or entry.task == task)
            and (index is None or entry.index == index)
        ]

    def ends(self, job_id: str = "") -> list[Entry]:
        return [
            entry
            for entry in self.entries()
            if entry.what.startswith("end:") and (not job_id or entry.job_id == job_id)
        ]

    def overlaps(self) -> list[tuple[Entry, Entry]]:
        """Pairs (later start, line of an older attempt after it): two attempts of an instance at once."""
        newest: dict[tuple[str, str, int], Entry] = {}
        found = []
        for entry in self.entries():
            other = newest.get(entry.instance)
            if entry.what == "start":
                newest[entry.instance] = entry
            elif other is not None and other.try_ != entry.try_:
                found.append((other, entry))
        return found
