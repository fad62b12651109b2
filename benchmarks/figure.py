"""One figure: a number, the reference it was measured against in the same run, and its goal."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_DIGITS = 4
"""Significant ones; the noise of a shared machine is far above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one key of a figure's line is to reach."""

    key: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met_by(self, line: Mapping[str, object]) -> bool:
        found = line[self.key]
        if not isinstance(found, int | float):
            return False
        return (self.at_least is None or found >= self.at_least) and (
            self.at_most is None or found <= self.at_most
        )

    def __str__(self) -> str:
        parts = [(">=", self.at_least), ("<=", self.at_most)]
        return " and ".join(f"{self.key} {sign} {limit:g}" for sign, limit in parts if limit is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A limit or a peer, measured beside the figure."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    value: float
    unit: str
    reference: Reference
    lowest: float
    highest: float
    n: int
    """How many rounds or samples `value` comes from."""
    extra: Mapping[str, object] = field(default_factory=dict)

    def line(self, goal: Sequence[Bound], noise: Mapping[str, object]) -> str:
        """The JSON line that is printed."""
        document: dict[str, object] = {
            "figure": self.name,
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference.name,
            "reference_value": self.reference.value,
            "ratio": self.value / self.reference.value if self.reference.value else math.nan,
            "min": self.lowest,
            "max": self.highest,
            "n": self.n,
            **self.extra,
        }
        if goal:
            document["goal"] = ", ".join(map(str, goal))
            document["met"] = all(bound.is_met_by(document) for bound in goal)
        document["noise"] = noise
        return json.dumps(_rounded(document))


def of_rounds(
    name: str, values: Sequence[float], *, unit: str, reference: Reference, **extra: object
) -> Figure:
    """The median of equal rounds."""
    return Figure(
        name=name,
        value=statistics.median(values),
        unit=unit,
        reference=reference,
        lowest=min(values),
        highest=max(values),
        n=len(values),
        extra=extra,
    )


def of_samples(
    name: str, values: Sequence[float], *, unit: str, reference: Reference, **extra: object
) -> Figure:
    """Many single samples: `value` is p50, and p99 stands beside it."""
    ordered = sorted(values)
    return Figure(
        name=name,
        value=quantile(ordered, 0.5),
        unit=unit,
        reference=reference,
        lowest=ordered[0],
        highest=ordered[-1],
        n=len(ordered),
        extra={"p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99), **extra},
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")
