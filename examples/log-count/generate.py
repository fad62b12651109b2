"""Writes the log of this example: 10,000 lines whose levels are known, in the same shuffled order every time.

python generate.py FILE
"""

import random
import sys
from datetime import datetime, timedelta
from pathlib import Path

LINES_PER_LEVEL = {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}
SEED = 20160501
START = datetime(2016, 5, 1, 8)  # noqa: DTZ001 - a log without time zones, as they come

SAYINGS = {
    "INFO": ("request {n} served in {ms} ms", "user {n} logged in", "cache of {ms} entries written"),
    "WARN": ("request {n} took {ms} ms", "queue holds {ms} entries", "retrying call {n}"),
    "DEBUG": ("call {n} entered", "buffer {n} holds {ms} bytes", "lock {n} taken after {ms} us"),
    "ERROR": ("request {n} failed after {ms} ms", "connection {n} was reset", "disk {n} has no space left"),
}


def log_lines() -> list[str]:
    dice = random.Random(SEED)
    levels = [level for level, count in LINES_PER_LEVEL.items() for _ in range(count)]
    dice.shuffle(levels)
    time = START
    lines = []
    for level in levels:
        time += timedelta(milliseconds=dice.randrange(1, 900))
        saying = dice.choice(SAYINGS[level]).format(n=dice.randrange(10_000), ms=dice.randrange(5_000))
        lines.append(f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000:03d} [{level}] {saying}\n")
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(log_lines()), encoding="utf-8")
