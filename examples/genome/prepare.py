"""Makes the input: a reference sequence and many samples of reads, some with planted differences.

python prepare.py FOLDER [--samples 200]        the same files at every call
"""

import argparse
import json
import random
from pathlib import Path

REFERENCE_BASES = 4000
READ_BASES = 80
READS = 800
PLANTED = 12
"""Places at which some samples differ from the reference."""
_WRONG_READS = 0.002
"""Of all bases: what a sequencer misreads."""


def planted(seed: int = 5) -> tuple[str, dict[int, str]]:
    """The reference, and which base stands where instead in those samples that have the difference."""
    rng = random.Random(seed)
    reference = "".join(rng.choice("ACGT") for _ in range(REFERENCE_BASES))
    places = sorted(rng.sample(range(READ_BASES, REFERENCE_BASES - READ_BASES), PLANTED))
    return reference, {
        place: rng.choice([base for base in "ACGT" if base != reference[place]]) for place in places
    }


def has_difference(sample: int, place: int) -> bool:
    """Every third sample or so, another third for each place."""
    return (sample * 7 + place) % 3 == 0


def reads_of(sample: int, reference: str, differences: dict[int, str]) -> list[str]:
    rng = random.Random(sample)
    bases = list(reference)
    for place, base in differences.items():
        if has_difference(sample, place):
            bases[place] = base
    lines = []
    for _ in range(READS):
        start = rng.randrange(REFERENCE_BASES - READ_BASES)
        read = [
            rng.choice("ACGT") if rng.random() < _WRONG_READS else base
            for base in bases[start : start + READ_BASES]
        ]
        lines.append(f"{start}\t{''.join(read)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    chosen = parser.parse_args()
    reference, differences = planted()
    samples = chosen.folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    (chosen.folder / "reference.txt").write_text(reference + "\n", encoding="ascii")
    for sample in range(chosen.samples):
        lines = reads_of(sample, reference, differences)
        (samples / f"sample-{sample:03}.tsv").write_text("\n".join(lines) + "\n", encoding="ascii")
    print(json.dumps({"samples": chosen.samples, "planted": PLANTED}))


if __name__ == "__main__":
    main()
