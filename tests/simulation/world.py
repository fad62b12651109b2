"""Virtual time: a heap of events, processes that can be killed and paused, clocks that are not right.

Everything that happens in a simulated run is one event of the heap, so a run is a function of its seed.
Time is seconds since the run began; no event looks at a real clock.
"""

import heapq
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from windlass_proto import failpoints

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_REMEMBERED_LINES = 4_000


class KilledHere(BaseException):
    """Kill -9 at a failpoint: ends whatever the process was doing; no production code may catch it."""


class SimulationFailure(AssertionError):
    """A promise is broken, or something in the run raised what it must not raise."""


@dataclass(slots=True)
class Clock:
    """The boot clock and the wall clock of one machine."""

    rate: float = 1.0
    """Seconds that it counts in a second."""
    wall_offset_s: float = 0.0
    boot_offset_s: float = 0.0

    def boot_s(self, now: float) -> float:
        return (now + self.boot_offset_s) * self.rate

    def wall(self, now: float) -> datetime:
        return START + timedelta(seconds=now * self.rate + self.wall_offset_s)


@dataclass(slots=True)
class Trace:
    """What happened: a hash over all of it, and the last lines for people."""

    lines: deque[tuple[float, tuple[object, ...]]] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED_LINES)
    )
    digest: int = 0
    length: int = 0

    def add(self, now: float, words: tuple[object, ...]) -> None:
        self.length += 1
        self.digest = zlib.crc32(repr((round(now, 6), words)).encode(), self.digest)
        self.lines.append((now, words))

    def text(self, last: int) -> str:
        lines = list(self.lines)[-last:]
        return "\n".join(f"{now:10.3f}  {' '.join(map(_shown, words))}" for now, words in lines)


def _shown(word: object) -> str:
    if hasattr(word, "task_key") and hasattr(word, "fence"):
        return f"<{word.task_key}/{word.index} attempt {word.attempt} fence {word.fence & 0xFFFFFF}>"
    if isinstance(word, tuple | list):
        return "[" + " ".join(map(_shown, word)) + "]"
    return str(word)


class World:
    """The event heap and everything that all processes share."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.trace = Trace()
        self.reached: Counter[str] = Counter()
        """Failpoints, by name."""
        self.running: Process | None = None
        """Whose event is being handled."""
        self.kill_probability: Callable[[str], float] = lambda _: 0.0
        self.after_event: Callable[[], None] = lambda: None
        self._heap: list[tuple[float, int, Process | None, int, Callable[[], None]]] = []
        self._count = 0

    def note(self, *words: object) -> None:
        self.trace.add(self.now, words)

    def at(self, when: float, what: Callable[[], None], process: "Process | None" = None) -> None:
        """`what` happens at `when`, unless `process` has died by then."""
        self._count += 1
        life = 0 if process is None else process.life
        heapq.heappush(self._heap, (max(when, self.now), self._count, process, life, what))

    def after(self, delay: float, what: Callable[[], None], process: "Process | None" = None) -> None:
        self.at(self.now + delay, what, process)

    def run_until(self, when: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """Handles events up to `when`, or until `is_over` (asked after each of them)."""
        while self._heap and self._heap[0][0] <= when:
            event = heapq.heappop(self._heap)
            self._handle(event)
            if is_over():
                return
        self.now = max(self.now, when)

    def _handle(self, event: tuple[float, int, "Process | None", int, Callable[[], None]]) -> None:
        when, _, process, life, what = event
        self.now = max(self.now, when)
        if process is not None:
            if process.life != life or not process.is_alive:
                return
            if process.paused_until > self.now:
                self.at(process.paused_until, what, process)
                return
        self.running = process
        try:
            what()
        except KilledHere as point:
            assert process is not None
            self.note("killed", process.name, "at", point)
            process.die()
        finally:
            self.running = None
        self.after_event()

    def reach(self, name: str) -> None:
        """The hook of `windlass_proto.failpoints`."""
        self.reached[name] += 1
        process = self.running
        if process is None or not process.is_alive or process.is_immune:
            return
        if self.rng.random() < self.kill_probability(name):
            raise KilledHere(name)

    def install(self) -> None:
        failpoints.install(self.reach)


class Process:
    """Something that can be killed and paused; its events die with it."""

    def __init__(self, world: World, name: str, clock: Clock) -> None:
        self.world, self.name, self.clock = world, name, clock
        self.life = 0
        self.is_alive = False
        self.is_immune = False
        self.paused_until = 0.0
        self.on_death: list[Callable[[], None]] = []
        """Who notices: connections and parents. Cleared with each death."""

    def start(self) -> None:
        assert not self.is_alive, f"{self.name} runs already"
        self.life += 1
        self.is_alive = True
        self.paused_until = 0.0
        self.world.note("started", self.name)

    def die(self) -> None:
        """Kill -9."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.world.note("dead", self.name)
        noticing, self.on_death = self.on_death, []
        for notice in noticing:
            notice()

    def pause(self, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.paused_until = max(self.paused_until, self.world.now + for_s)
        self.world.note("paused", self.name, round(for_s, 3))

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        """After so long on this machine's own boot clock."""
        self.world.after(max(0.0, delay_s) / self.clock.rate, what, self)

    def boot_s(self) -> float:
        return self.clock.boot_s(self.world.now)

    def wall(self) -> datetime:
        return self.clock.wall(self.world.now)
