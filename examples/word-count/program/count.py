"""Counts the words of its part: runs of letters, in lower case."""

import json
import re
from collections import Counter

import conf

WORD = re.compile(rb"[a-z]+")


def main() -> None:
    results = conf.OUTPUT / conf.COUNT_RESULTS
    results.mkdir(parents=True, exist_ok=True)
    for part in conf.parts_of_this_instance():
        words: Counter[bytes] = Counter()
        with (conf.INPUT / conf.SPLIT_RESULTS / f"{part}.txt").open("rb") as lines:
            for line in lines:
                words.update(WORD.findall(line.lower()))
        counts = {word.decode(): count for word, count in words.items()}
        (results / f"{part}.json").write_text(json.dumps(counts), encoding="utf-8")
        print(f"part {part}: {words.total()} words, {len(words)} different")


if __name__ == "__main__":
    main()
