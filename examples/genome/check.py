"""Compares the job's result with what `prepare.py` planted.

python check.py VARIANTS.TSV [--samples 200]
"""

import argparse
from pathlib import Path

from prepare import has_difference, planted


def expected(samples: int) -> list[str]:
    """The lines that the job has to write: place, base there, base instead, samples that have it."""
    reference, differences = planted()
    return [
        f"{place}\t{reference[place]}\t{base}\t{sum(has_difference(one, place) for one in range(samples))}"
        for place, base in sorted(differences.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    chosen = parser.parse_args()
    found = chosen.result.read_text(encoding="ascii").splitlines()
    wanted = expected(chosen.samples)
    if found != wanted:
        raise SystemExit(
            f"the job found {len(found)} differences, planted were {len(wanted)}; or their samples differ"
        )
    print(f"all {len(wanted)} planted differences were found, each in the right number of samples")


if __name__ == "__main__":
    main()
