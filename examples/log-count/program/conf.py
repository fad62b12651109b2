"""What the three programs agree on. Paths lie in the work directory, so they are the same on every node."""

import os
from pathlib import Path

LEVELS = ("INFO", "WARN", "DEBUG", "ERROR")

INPUT = Path("input")
"""What lies in the object store when the task starts; only read."""
OUTPUT = Path("output")
"""What is written here is uploaded to the same place when the task has ended."""

LOG = "log-count-data.txt"
SPLIT_RESULTS = "split_results"
COUNT_RESULTS = "count_results"
MERGE_RESULT = "merge_result.txt"

PARTS = int(os.environ.get("PARTS", "3"))
"""Into how many files the log is split."""


def parts_of_this_instance() -> range:
    """One part each when there are as many instances as parts; with fewer, each takes every n-th part."""
    # The second name of each is that of the services this job was first written for.
    index = os.environ.get("WINDLASS_INDEX") or os.environ["BATCH_COMPUTE_DAG_INSTANCE_ID"]
    instances = os.environ.get("WINDLASS_INSTANCE_COUNT") or PARTS
    return range(int(index), PARTS, int(instances))
