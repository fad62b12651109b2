"""What the three programs agree on. Paths lie in the work directory, so they are the same on every node."""

import os
from pathlib import Path

INPUT = Path("input")
"""What lies in the object store when the task starts; only read."""
OUTPUT = Path("output")
"""What is written here is uploaded to the same place when the task has ended."""

SOURCES = "sources.tar"
SPLIT_RESULTS = "split_results"
COUNT_RESULTS = "count_results"
MERGE_RESULT = "words.json"

PARTS = int(os.environ.get("PARTS", "4"))
"""Into how many files the sources are gathered."""


def parts_of_this_instance() -> range:
    """One part each when there are as many instances as parts; with fewer, each takes every n-th part."""
    return range(int(os.environ["WINDLASS_INDEX"]), PARTS, int(os.environ["WINDLASS_INSTANCE_COUNT"]))
