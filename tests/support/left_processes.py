"""Processes that are still there: found by what they were started with and by where they stand."""

from pathlib import Path

import psutil


def naming(text: str) -> list[list[str]]:
    """The command lines in which `text` occurs, other than this process's own."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(text in argument for argument in line)]


def standing_in(directory: Path) -> list[int]:
    """Processes whose working directory lies in `directory`."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        where = process.info["cwd"]
        if where and Path(where).is_relative_to(directory):
            found.append(process.pid)
    return found
