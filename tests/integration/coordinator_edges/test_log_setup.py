"""What the coordinator's process logs, seen from outside."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from windlass_coordinator.config import LogLevel
from windlass_coordinator.log_setup import set_up_logging

set_up_logging(LogLevel.INFO)
log = structlog.get_logger()
log.debug("lease.renewed")
log.info("attempt.started", job="job-1")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("call.failed", exc_info=error)
logging.getLogger("library").warning("it says %s", "hm")
logging.getLogger("library").info("chatter")
"""


def test_where_no_person_looks_each_event_is_one_json_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=30, check=True)

    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(entry["event"], entry["level"]) for entry in entries] == [
        ("attempt.started", "info"),
        ("call.failed", "error"),
        ("it says hm", "warning"),
    ]
    assert entries[0]["job"] == "job-1"
    assert "ZeroDivisionError" in entries[1]["exception"]
    assert done.stdout == b""
