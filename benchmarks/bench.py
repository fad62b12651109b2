"""What every measurement is given: a place on a disk, how often to repeat, and a way to tell of progress."""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    directory: Path
    """Scratch; gone when the bench ends."""
    rounds: int = 3
    patience_s: float = 0.0
    """How long to wait for a quiet machine before each measurement."""

    def scratch(self, name: str) -> Path:
        """A new, empty directory."""
        for number in range(1000):
            place = self.directory / f"{name}-{number}"
            if not place.exists():
                place.mkdir(parents=True)
                return place
        raise FileExistsError(f"{self.directory} is full of directories called {name}")

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)
