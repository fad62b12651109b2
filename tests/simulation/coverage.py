"""Which pairs of state and event, and which failpoints, runs have come through."""

from collections import Counter
from dataclasses import dataclass, field

Pair = tuple[str, str, str]
"""Kind of thing, its state, what happened to it."""


@dataclass(slots=True)
class Coverage:
    pairs: Counter[Pair] = field(default_factory=Counter)
    failpoints: Counter[str] = field(default_factory=Counter)

    def saw(self, kind: str, state: str, event: str) -> None:
        self.pairs[kind, state, event] += 1

    def add(self, other: "Coverage") -> None:
        self.pairs.update(other.pairs)
        self.failpoints.update(other.failpoints)

    def lines(self) -> list[str]:
        """For people: the rarest first, as those are the ones to look at."""
        pairs = sorted(self.pairs.items(), key=lambda found: (found[0][0], found[1]))
        points = sorted(self.failpoints.items(), key=lambda found: found[1])
        return [
            *(f"{count:8}  {kind:9} {state:10} {event}" for (kind, state, event), count in pairs),
            *(f"{count:8}  failpoint {name}" for name, count in points),
        ]
