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
