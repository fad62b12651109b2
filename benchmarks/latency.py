"""How long an idle system takes: a submission until its command runs, a command's end until a client sees it,
one task of a chain until the next. The reference is one empty gRPC round trip in the same run."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_samples, quantile
from benchmarks.programs import BenchFailed, running
from benchmarks.stamps import Stamp, build_stamp, read_stamps
from benchmarks.system import Coordinator, agent, chain, coordinator, many, succeeded
from windlass import Client

_SUBMISSIONS = 150
_PAUSE_S = 0.01
"""Between submissions, so that each finds an idle system; as long as in the peers' scripts. The round trips
of the reference have the same pause: what wakes up from idling is twice as slow as what is warm."""
_WARM = 10
_CHAIN = 50
_ROUND_TRIPS = 300
_DEADLINE = timedelta(seconds=60)


def measure(bench: Bench) -> Iterator[Figure]:
    directory = bench.scratch("latency")
    stamp = build_stamp(directory)
    if stamp.note:
        bench.say(stamp.note.upper())
    notes = {"note": stamp.note} if stamp.note else {}
    with coordinator(directory) as on, agent(on, "agent-0", slots=1), agent(on, "agent-1", slots=1):
        trips_ms = round_trips_ms(directory)
        dispatch_ms, notice_ms = asyncio.run(_single(on, stamp, directory))
        bench.say(f"dispatch p50 {_p50(dispatch_ms):.2f} ms, notice p50 {_p50(notice_ms):.2f} ms")
        steps_ms = [step for number in range(bench.rounds) for step in _chain(on, stamp, directory, number)]
        bench.say(f"dag step p50 {_p50(steps_ms):.2f} ms")
        trips_ms += round_trips_ms(directory)
    reference = Reference(name="grpc_round_trip_ms", value=_p50(trips_ms))
    for name, samples in (
        ("dispatch_ms", dispatch_ms),
        ("notice_ms", notice_ms),
        ("dag_step_ms", steps_ms),
    ):
        yield of_samples(name, samples, unit="ms", reference=reference, **notes)


def _p50(samples: Sequence[float]) -> float:
    return quantile(sorted(samples), 0.5)


async def _single(on: Coordinator, stamp: Stamp, directory: Path) -> tuple[list[float], list[float]]:
    """One submission after the other, each waited for by a watch, as users do."""
    file = directory / "single"
    moments: list[tuple[float, float]] = []
    async with Client(on.profile) as client:
        for number in range(-_WARM, _SUBMISSIONS):
            await asyncio.sleep(_PAUSE_S)
            spec = many("single", stamp.command(file, str(number)), instances=1)
            before = time.time()
            async with asyncio.timeout(_DEADLINE.total_seconds()):
                job_id = await client.submit(spec)
                states = [(job, time.time()) async for job in client.watch(job_id)]
            job, seen = states[-1]
            succeeded(job)
            if number >= 0:
                moments.append((before, seen))
    ran = read_stamps(file)
    dispatch = [(ran[str(number)] - before) * 1e3 for number, (before, _) in enumerate(moments)]
    notice = [(seen - ran[str(number)]) * 1e3 for number, (_, seen) in enumerate(moments)]
    return dispatch, notice


def _chain(on: Coordinator, stamp: Stamp, directory: Path, number: int) -> list[float]:
    """From the start of one command to the start of the next, so running it is in it."""
    file = directory / f"chain-{number}"
    on.wait(on.client.submit(chain("chain", [stamp.command(file, str(step)) for step in range(_CHAIN)])))
    ran = read_stamps(file)
    return [(ran[str(step + 1)] - ran[str(step)]) * 1e3 for step in range(_CHAIN - 1)]


def round_trips_ms(directory: Path) -> list[float]:
    with running("echo", ["benchmarks.latency"], directory=directory, talks=True) as server:
        return asyncio.run(_ask(f"127.0.0.1:{server.hear()}"))


async def _ask(address: str) -> list[float]:
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/bench/Echo")
        for _ in range(_ROUND_TRIPS):
            await asyncio.sleep(_PAUSE_S)
            start = time.perf_counter()
            if await echo(b"x", timeout=5.0) != b"x":
                raise BenchFailed("the echo server answers something else")
            times.append((time.perf_counter() - start) * 1e3)
    return times[_WARM:]


async def _serve() -> None:
    """The other end of the round trips: an asyncio server that answers what it is sent."""

    async def echo(request: bytes, context: object) -> bytes:
        return request

    class _Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.unary_unary_rpc_method_handler(echo)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
