"""A task of a million instances: how long submission takes, and what the coordinator holds while it waits."""

import time
from collections.abc import Iterator
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from benchmarks.system import TRUE, Coordinator, coordinator, many
from windlass import JobSpec

_INSTANCES = 1_000_000
_SUBMISSIONS = 10
_WARM_SUBMISSIONS = 50


def measure(bench: Bench) -> Iterator[Figure]:
    million, one = many("million", TRUE, instances=_INSTANCES), many("one", TRUE, instances=1)
    with coordinator(bench.scratch("million")) as on:
        for _ in range(_WARM_SUBMISSIONS):
            _submit_ms(on, one)
        plain_ms = [_submit_ms(on, one) for _ in range(_SUBMISSIONS)]
        before_kib = on.program.rss_kib()
        million_ms = [_submit_ms(on, million) for _ in range(_SUBMISSIONS)]
        grown_kib = on.program.rss_kib() - before_kib
    yield of_rounds(
        "submit_million",
        million_ms,
        unit="ms",
        reference=Reference(name="submit_one_instance", value=median(plain_ms)),
        rss_growth_kib=grown_kib / _SUBMISSIONS,
        instances=_INSTANCES,
        queued_at_once=_SUBMISSIONS,
    )


def _submit_ms(on: Coordinator, spec: JobSpec) -> float:
    start = time.perf_counter()
    on.client.submit(spec)
    return (time.perf_counter() - start) * 1e3
