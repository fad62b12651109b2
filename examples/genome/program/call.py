"""Finds where the samples of this instance differ from the reference.

Every n-th sample is this instance's. Inputs are read where they are mounted; one file per sample is written.
"""

import os
from collections import Counter, defaultdict
from pathlib import Path

INPUT = Path("input")
OUTPUT = Path("calls")
LEAST_READS = 3
SHARE = 0.6
"""Of the reads that cover a place: as many must agree on another base."""


def calls(reference: str, sample: Path) -> list[str]:
    seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
    with sample.open(encoding="ascii") as lines:
        for line in lines:
            start, read = line.split()
            for place, base in enumerate(read, start=int(start)):
                seen[place][base] += 1
    found = []
    for place in sorted(seen):
        base, count = seen[place].most_common(1)[0]
        covered = seen[place].total()
        if base != reference[place] and covered >= LEAST_READS and count >= SHARE * covered:
            found.append(f"{place}\t{reference[place]}\t{base}")
    return found


def main() -> None:
    index, count = int(os.environ["WINDLASS_INDEX"]), int(os.environ["WINDLASS_INSTANCE_COUNT"])
    reference = (INPUT / "reference.txt").read_text(encoding="ascii").strip()
    OUTPUT.mkdir(exist_ok=True)
    for sample in sorted((INPUT / "samples").iterdir())[index::count]:
        found = calls(reference, sample)
        (OUTPUT / sample.name).write_text("".join(f"{line}\n" for line in found), encoding="ascii")
        print(f"{sample.name}: {len(found)} differences")


if __name__ == "__main__":
    main()
