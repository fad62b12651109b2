"""Counts how many lines of its part have which level."""

import json
import re
from collections import Counter
from collections.abc import Iterable

import conf

# The first level in a line is the line's level; an error may well tell of a warning.
LEVEL = re.compile(rb"\b(" + "|".join(conf.LEVELS).encode() + rb")(?:ING)?\b")


def levels_of(lines: Iterable[bytes]) -> dict[str, int]:
    found = Counter(match.group(1).decode() for match in map(LEVEL.search, lines) if match)
    return {level: found[level] for level in conf.LEVELS}


def main() -> None:
    results = conf.OUTPUT / conf.COUNT_RESULTS
    results.mkdir(parents=True, exist_ok=True)
    for part in conf.parts_of_this_instance():
        with (conf.INPUT / conf.SPLIT_RESULTS / f"{part}.txt").open("rb") as lines:
            counts = levels_of(lines)
        (results / f"{part}.json").write_text(json.dumps(counts), encoding="utf-8")
        print(f"part {part}: {json.dumps(counts)}")


if __name__ == "__main__":
    main()
