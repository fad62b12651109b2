"""Several coordinators on one PostgreSQL database, as their operator starts them."""

import asyncio
from pathlib import Path

from tests.support import postgres
from tests.support.coordinator_process import wait_until
from tests.support.several_coordinators import add_coordinator, holder_of_duties, on_postgres, tables
from tests.support.world import a_world


async def test_a_first_start_of_several_at_once_makes_one_system(tmp_path: Path) -> None:
    url = postgres.shared_server().new_database()  # nothing in it: both of them find no tables
    async with a_world(tmp_path) as world:
        on_postgres(world, url)
        other = add_coordinator(world)
        await asyncio.gather(asyncio.to_thread(world.coordinator.start), asyncio.to_thread(other.start))
        assert [cluster.name for cluster in await world.client.clusters()] == ["default"]
        # Each has an admin token of its own, and both are good at both.
        tokens = {coordinator.token_file.read_text() for coordinator in (world.coordinator, other)}
        assert len(tokens) == 2
        async with world.new_client(via=other.address) as client:
            assert [cluster.name for cluster in await client.clusters()] == ["default"]
        await asyncio.to_thread(
            wait_until, lambda: holder_of_duties(url)[1] == 1, within_s=30, what="one has the duties"
        )
        with tables(url) as rows:
            assert rows("SELECT count(*) FROM clusters") == [(1,)]
            assert rows("SELECT value FROM meta WHERE key = 'incarnation'") == [("1",)]
        first, term = holder_of_duties(url)
        # Who goes in order gives the duties up: nobody waits for a beat.
        for coordinator in (world.coordinator, other):
            assert await asyncio.to_thread(coordinator.terminate) == 0
        last, ended = holder_of_duties(url)
        assert (last, ended >= term + 1) == ("", True)
        assert first != last
