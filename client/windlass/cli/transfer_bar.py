"""How far bytes on their way are, on a terminal; nothing anywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from windlass.cli import render
from windlass.store import Progress as Moved


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=render.console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


@contextmanager
def transfer_bar(name: str, total_bytes: int) -> Iterator[Moved]:
    """What it gives is told how many further bytes were moved."""
    with progress() as bar:
        moving = bar.add_task(name, total=total_bytes)
        yield lambda count: bar.advance(moving, count)
