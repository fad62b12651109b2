"""One command's output on its way into the coordinator's log store, against the same bytes into a file."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from benchmarks.log_rate import GIB, measure_log_rate

_CHUNK_BYTES = 512 << 10
_SYNC_EVERY_BYTES = 32 << 20


def measure(bench: Bench) -> Iterator[Figure]:
    plain, rates = [], []
    for number in range(bench.rounds):
        plain.append(_plain_mb_per_s(bench.scratch("plain")))
        rates.append(asyncio.run(measure_log_rate(bench.scratch("logs"))))
        bench.say(f"log_rate {number + 1}: {rates[-1].mb_per_s:.0f} MB/s, plain file {plain[-1]:.0f} MB/s")
    yield of_rounds(
        "log_rate",
        [rate.mb_per_s for rate in rates],
        unit="MB/s",
        reference=Reference(name="file_written_and_synced", value=median(plain)),
        cpu_s_per_gib=median(rate.cpu_s_per_gib for rate in rates),
        sender_cpu_s_per_gib=median(rate.sender_cpu_s_per_gib for rate in rates),
        server_cpu_s_per_gib=median(rate.server_cpu_s_per_gib for rate in rates),
    )


def _plain_mb_per_s(directory: Path) -> float:
    path = directory / "plain"
    chunk = os.urandom(_CHUNK_BYTES)
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for end in range(_CHUNK_BYTES, GIB + 1, _CHUNK_BYTES):
            file.write(chunk)
            if end % _SYNC_EVERY_BYTES == 0:
                os.fdatasync(file.fileno())
    elapsed_s = time.perf_counter() - start
    path.unlink()
    return GIB / elapsed_s / 1e6
