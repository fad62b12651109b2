"""Compares the merged result with a plain count of the same files in this one process.

python check.py FILE        FILE: words.json, as the job wrote it
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from prepare import library_files, standard_library


def plain_count(library: Path) -> Counter[str]:
    words: Counter[str] = Counter()
    for path in library_files(library):
        words.update(re.findall("[a-z]+", path.read_bytes().lower().decode("latin-1")))
    return words


def main() -> None:
    merged = Counter(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    plain = plain_count(standard_library())
    if merged != plain:
        differing = {word for word in merged.keys() | plain.keys() if merged[word] != plain[word]}
        sys.exit(f"the job counted otherwise than one process did: {len(differing)} words differ")
    print(f"equal to a single-process count: {plain.total()} words, {len(plain)} different")


if __name__ == "__main__":
    main()
