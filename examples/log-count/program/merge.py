"""Adds up the counts of all parts."""

import json
from collections import Counter

import conf


def main() -> None:
    total: Counter[str] = Counter()
    for part in range(conf.PARTS):
        path = conf.INPUT / conf.COUNT_RESULTS / f"{part}.json"
        total.update(json.loads(path.read_text(encoding="utf-8")))
    line = json.dumps({level: total[level] for level in conf.LEVELS})
    conf.OUTPUT.mkdir(exist_ok=True)
    (conf.OUTPUT / conf.MERGE_RESULT).write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
