"""The catalogue of faults, from `catalogue.toml`: ids, titles, and the promises they prove."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_CATALOGUE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    id: str
    title: str
    promises: tuple[str, ...]


def _fault(fault_id: str, title: str) -> Fault:
    promises = _CATALOGUE["promises"]
    proves = tuple(name for name, promise in promises.items() if fault_id in promise["proof"].split())
    return Fault(id=fault_id, title=title, promises=proves)


FAMILIES: dict[str, str] = _CATALOGUE["families"]
PROMISES: dict[str, str] = {name: promise["text"] for name, promise in _CATALOGUE["promises"].items()}
FAULTS = {fault_id: _fault(fault_id, title) for fault_id, title in _CATALOGUE["titles"].items()}
"""By id, in the order of the page."""
