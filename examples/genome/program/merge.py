"""Counts in how many samples each difference was found."""

from collections import Counter
from pathlib import Path

INPUT = Path("calls")
OUTPUT = Path("result")


def main() -> None:
    found: Counter[tuple[int, str, str]] = Counter()
    for sample in sorted(INPUT.glob("sample-*.tsv")):
        for line in sample.read_text(encoding="ascii").splitlines():
            place, reference, base = line.split("\t")
            found[int(place), reference, base] += 1
    # What one sample has alone is a misread, not a difference.
    lines = [
        f"{place}\t{old}\t{new}\t{count}\n" for (place, old, new), count in sorted(found.items()) if count > 1
    ]
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "variants.tsv").write_text("".join(lines), encoding="ascii")
    print(f"{len(lines)} differences")


if __name__ == "__main__":
    main()
