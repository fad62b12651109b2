"""The news that this machine will be taken away soon, and what the node does about it (promise P24).

A provider's hook, or `windlass-agent notice`, leaves a file in the state directory; a running agent sees it
within a second. It takes no more work, gives back what has not begun, ends what runs with the time that is
left, and says that it leaves when everything is told and all output is sent, or when the time is over.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from windlass_agent.core.intake import Intake, Obstacle
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.spool.durable import write_whole

_LOOK_EVERY_S = 0.25
_LAST_CALL_S = 0.3
"""Before the machine goes: the call that says so must still get through."""
_STALE_S = 60.0
"""A machine that is still there so long after its end was given up for nothing; the file is forgotten."""

_TAKEN_AWAY = "the machine is taken away"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    boot_id: str
    """Of the machine's run that it is about."""
    ends_at_s: float
    """Of that run's boot clock."""
    patient_until_s: float = 0.0
    """What runs may come to its own end until then."""
    reason: str = _TAKEN_AWAY


def write_notice(path: Path, notice: Notice) -> None:
    write_whole(path, json.dumps(asdict(notice)).encode())


def read_notice(path: Path) -> Notice | None:
    """None when there is none, or it cannot be read: nobody is ended for a file that makes no sense."""
    try:
        document = json.loads(path.read_bytes())
        return Notice(
            boot_id=str(document["boot_id"]),
            ends_at_s=float(document["ends_at_s"]),
            patient_until_s=float(document.get("patient_until_s", 0.0)),
            reason=str(document.get("reason", _TAKEN_AWAY)),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as problem:
        log.warning("notice.unreadable", file=str(path), reason=str(problem))
        return None


class NoticeWatch:
    def __init__(
        self,
        path: Path,
        runner: AttemptRunner,
        intake: Intake,
        *,
        boot_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._path, self._runner, self._intake = path, runner, intake
        self._boot_id, self._clock = boot_id, clock
        self.leave_due = asyncio.Event()
        """Nothing more is to be told: the coordinator may be told that the node leaves."""
        self.reason = ""

    async def serve(self) -> None:
        notice = await self._notice()
        self.reason = notice.reason
        self._intake.close(Obstacle.LEAVING, self.reason)
        if notice.patient_until_s > self._clock():
            log.info("node.leaving", reason=self.reason, running=self._runner.running)
            await self._everything_told(notice.patient_until_s)
        within_s = max(0.0, notice.ends_at_s - self._clock())
        if not self._runner.has_left:
            log.warning("node.preempted", within_s=round(within_s, 1), running=self._runner.running)
        self._runner.preempt(within_s)
        await self._everything_told(notice.ends_at_s - _LAST_CALL_S)
        self.leave_due.set()

    async def _everything_told(self, give_up_at_s: float) -> None:
        while True:
            if self._runner.has_left or self._clock() >= give_up_at_s:
                return
            await asyncio.sleep(_LOOK_EVERY_S / 5)

    async def _notice(self) -> Notice:
        """That the machine goes, as soon as somebody says so."""
        seen_ns = 0
        while True:
            changed_ns = _changed_ns(self._path)
            if changed_ns != seen_ns:
                seen_ns = changed_ns
                notice = read_notice(self._path)
                if notice and self._is_about_now(notice):
                    return notice
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_about_now(self, notice: Notice) -> bool:
        return notice.boot_id == self._boot_id and self._clock() < notice.ends_at_s + _STALE_S


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
