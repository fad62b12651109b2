"""A node without attempts: its polls are all that it says, and enough."""

from pathlib import Path

from tests.support.grpc_proxy import grpc_proxy
from tests.support.world import LEASE_S, a_world
from windlass_proto.model.states import JobState, NodeState
from windlass_proto.v1 import agent_pb2 as wire

_LEASES = 4


async def test_a_node_without_attempts_stays_ready_by_its_polls_and_sends_heartbeats_when_it_has_one(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path) as world:
        proxy = world.stack.enter_context(grpc_proxy(world.coordinator.address))
        await world.start(via=proxy.address)
        (node,) = await world.client.nodes()
        await world.until(lambda: proxy.calls["Heartbeat"] == 1)
        await world.lasts(_LEASES * LEASE_S)

        assert proxy.calls["Heartbeat"] == 1
        assert "node.silent" not in world.coordinator.said
        polls = [call for call in proxy.recorded if call.method.endswith("/Poll")]
        assert all(wire.PollRequest.FromString(call.request).is_empty for call in polls)
        # Each is parked for less than half a lease; the first for a random part of that.
        assert 2 * _LEASES <= len(polls) <= 4 * _LEASES

        gate = world.gate()
        job = await world.submit(gate.wait)
        await world.until_started(job)
        before = proxy.calls["Heartbeat"]
        await world.until(lambda: proxy.calls["Heartbeat"] >= before + 3)
        gate.open()
        assert (await world.wait(job)).state is JobState.SUCCEEDED
        (same,) = await world.client.nodes()
        assert (same.node_id, same.state) == (node.node_id, NodeState.READY)
        await world.close()
