"""Health and metrics over real HTTP."""

import asyncio
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from windlass_coordinator.settings_tree import HostPort
from windlass_coordinator.web.server import WebServer, WhyNotReady
from windlass_proto.errors import Unavailable

ANY_PORT = HostPort(host="127.0.0.1", port=0)


@asynccontextmanager
async def serving_http(
    address: HostPort, *, registry: CollectorRegistry, why_not_ready: WhyNotReady
) -> AsyncIterator[HostPort]:
    server = WebServer(address, registry=registry, why_not_ready=why_not_ready)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        yield server.address
        server.stop()


async def get(address: HostPort, path: str, *, method: str = "GET") -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        request = urllib.request.Request(f"http://{address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_health_tells_whether_the_coordinator_lives_and_why_it_is_not_ready() -> None:
    reasons: list[str | None] = ["the store is being migrated", None]
    async with serving_http(
        ANY_PORT, registry=CollectorRegistry(), why_not_ready=lambda: reasons.pop(0)
    ) as address:
        assert await get(address, "/health/live") == (200, "alive\n")
        assert await get(address, "/health/ready") == (503, "the store is being migrated\n")
        assert await get(address, "/health/ready") == (200, "ready\n")


async def test_metrics_are_those_of_the_registry_passed_in() -> None:
    registry = CollectorRegistry()
    Counter("claims", "Instances claimed", registry=registry).inc(3)
    async with serving_http(ANY_PORT, registry=registry, why_not_ready=lambda: None) as address:
        status, text = await get(address, "/metrics")

    assert status == 200
    assert "claims_total 3.0" in text


async def test_nothing_else_is_served() -> None:
    async with serving_http(ANY_PORT, registry=CollectorRegistry(), why_not_ready=lambda: None) as address:
        assert (await get(address, "/"))[0] == 404
        assert (await get(address, "/health/live", method="POST"))[0] == 405


async def test_the_listener_leaves_signals_alone_and_closes_with_its_context() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with serving_http(ANY_PORT, registry=CollectorRegistry(), why_not_ready=lambda: None) as address:
        await get(address, "/health/live")
        assert signal.getsignal(signal.SIGTERM) is before

    with pytest.raises(urllib.error.URLError):
        await get(address, "/health/live")


async def test_a_port_in_use_is_told_in_one_sentence() -> None:
    async with serving_http(ANY_PORT, registry=CollectorRegistry(), why_not_ready=lambda: None) as address:
        with pytest.raises(Unavailable, match=f"cannot listen at {address} for HTTP: Address already in use"):
            WebServer(address, registry=CollectorRegistry(), why_not_ready=lambda: None)
