"""Adds up the words of all parts, most frequent first."""

import json
from collections import Counter

import conf


def main() -> None:
    total: Counter[str] = Counter()
    for part in range(conf.PARTS):
        path = conf.INPUT / conf.COUNT_RESULTS / f"{part}.json"
        total.update(json.loads(path.read_text(encoding="utf-8")))
    in_order = dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
    conf.OUTPUT.mkdir(exist_ok=True)
    (conf.OUTPUT / conf.MERGE_RESULT).write_text(json.dumps(in_order) + "\n", encoding="utf-8")
    print(f"{total.total()} words, {len(total)} different; most frequent: {', '.join(list(in_order)[:10])}")


if __name__ == "__main__":
    main()
