"""Connections that only cost (L01-L06): cut off, while others are served."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support import http2
from tests.support.http2 import Peer, frame, headers_of, literal
from tests.support.raw_calls import raw_calls
from tests.support.world import World

GET_JOB = "/windlass.v1.JobService/GetJob"
SUBMIT = "/windlass.v1.JobService/SubmitJob"
GROWTH = 20 << 20
TENTH = 0.1


def token_of(world: World) -> str:
    return world.coordinator.token_file.read_text().strip()


def peer_of(world: World, *, speaks: bool = True, address: str = "") -> Peer:
    peer = Peer(address or world.coordinator.address, speaks=speaks)
    world.stack.callback(peer.close)
    return peer


async def until_cut_off(world: World, send: Callable[[], bool]) -> None:
    """Sends again and again until the coordinator ends the connection; users are served all the while."""

    async def is_cut_off() -> bool:
        return not await asyncio.to_thread(send)

    await world.until(is_cut_off)
    assert await world.client.submit(world.job("true"))


@scenario("L01")
async def test_l01_a_message_that_is_too_large_or_says_so_takes_no_memory(world: World) -> None:
    await world.start(agents=0)
    await world.submit("true")
    before = world.coordinator.usage().memory_bytes
    async with raw_calls(world) as calls:
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await calls.ask(SUBMIT, bytes(5 << 20))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    peers = [peer_of(world) for _ in range(20)]
    for peer in peers:
        told = b"\0" + (1 << 30).to_bytes(4, "big")
        peer.send(
            frame(http2.HEADERS, http2.END_HEADERS, 1, headers_of(SUBMIT, token=token_of(world)))
            + frame(http2.DATA, 0, 1, told + bytes(1000))
        )
    await world.submit("true")
    assert world.coordinator.usage().memory_bytes < before + GROWTH
    for peer in peers:
        peer.close()


@scenario("L02", quick=False)
async def test_l02_idle_strangers_are_capped_and_closed_and_others_are_served(world: World) -> None:
    await world.start()
    idle = [peer_of(world, speaks=number % 2 == 0) for number in range(3000)]

    async def are_closed() -> bool:
        await world.client.submit(world.job("true"))
        return await asyncio.to_thread(lambda: all(peer.is_closed() for peer in idle))

    await world.until(are_closed)
    assert (await world.wait(await world.submit("true"))).state == "SUCCEEDED"


@scenario("L03", quick=False)
async def test_l03_http_clients_that_dribble_are_cut_off_and_others_are_served(
    world: World, profile: FaultProfile
) -> None:
    await world.start(agents=0)
    address = world.coordinator.http
    slow = [peer_of(world, speaks=False, address=address) for _ in range(500)]
    for peer in slow:
        peer.send(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await world.client.submit(world.job("true"))

    async def are_cut_off() -> bool:
        alive = [peer for peer in slow if not peer.is_closed()]
        for peer in alive:
            peer.send(b"x")
        await asyncio.sleep(TENTH)
        return not alive

    await world.until(are_cut_off)
    await world.until(lambda: world.coordinator.get("/health/ready")[0] == 200)


@scenario("L04")
async def test_l04_a_flood_of_pings_ends_its_connection(world: World) -> None:
    await world.start(agents=0)
    peer = peer_of(world)
    await until_cut_off(world, lambda: peer.send(frame(http2.PING, 0, 0, b"12345678") * 100))


@scenario("L05", quick=False)
@pytest.mark.parametrize("has_token", [False, True])
async def test_l05_streams_opened_and_given_up_in_a_flood_end_their_connection(
    world: World, has_token: bool
) -> None:
    await world.start(agents=0)
    peer = peer_of(world)
    headers = headers_of(GET_JOB, token=token_of(world) if has_token else "")
    streams = iter(range(1, 1 << 30, 2))

    def flood() -> bool:
        some = [next(streams) for _ in range(50)]
        opened_and_reset = b"".join(
            frame(http2.HEADERS, http2.END_HEADERS, stream, headers)
            + frame(http2.RESET, 0, stream, b"\0\0\0\x08")
            for stream in some
        )
        return peer.send(opened_and_reset)

    await until_cut_off(world, flood)


@scenario("L06")
async def test_l06_a_megabyte_of_headers_is_refused(world: World) -> None:
    await world.start(agents=0)
    before = world.coordinator.usage().memory_bytes
    async with raw_calls(world) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls.ask(GET_JOB, b"", metadata=(("x-long", "x" * (1 << 20)),))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.coordinator.usage().memory_bytes < before + GROWTH


@scenario("L06", quick=False)
async def test_l06_headers_that_never_end_end_their_connection(world: World) -> None:
    await world.start(agents=0)
    before = world.coordinator.usage().memory_bytes
    peer = peer_of(world)
    more = frame(http2.CONTINUATION, 0, 1, literal(b"x-more", b"y" * 1000))
    begun = [frame(http2.HEADERS, 0, 1, headers_of(GET_JOB))]

    def go_on() -> bool:
        """Headers that never end, in one frame after the other."""
        return peer.send((begun.pop() if begun else b"") + more * 200)

    await until_cut_off(world, go_on)
    assert world.coordinator.usage().memory_bytes < before + GROWTH
