"""Polls of which nobody knows whether an earlier call with their number was answered."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.support.builders import Machine, a_job, a_task
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.auth.identity import AgentIdentity
from windlass_coordinator.auth.sealing import open_sealer
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.core.records import Wakes
from windlass_coordinator.engine.claim import claim
from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.engine.parking import ParkedPolls
from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.rpc import agent_messages
from windlass_coordinator.rpc.agent_service import AgentService, AgentServiceParts
from windlass_coordinator.rpc.append_log import LogIntake
from windlass_coordinator.rpc.log_archive import LogArchive
from windlass_coordinator.stores.base import Delivery, Transaction
from windlass_proto import convert
from windlass_proto.model.ids import DEFAULT_CLUSTER, DEFAULT_TENANT
from windlass_proto.v1 import agent_pb2 as wire


@pytest.fixture
def coordinator() -> Iterator[InMemoryCoordinator]:
    with InMemoryCoordinator() as found:
        yield found


@pytest.fixture
def service(coordinator: InMemoryCoordinator, tmp_path: Path) -> AgentService:
    logs = open_log_store(tmp_path / "logs")
    return AgentService(
        AgentServiceParts(
            store=coordinator.store,
            fleet=Fleet(LeasePolicy(), monotonic=lambda: 0.0),
            parked=ParkedPolls(),
            intake=LogIntake(logs, on_appended=lambda _: None),
            archive=LogArchive(logs),
            rules=coordinator.rules,
            sealer=open_sealer(tmp_path / "master.key"),
        )
    )


def test_a_repeated_poll_is_not_told_that_nothing_came_when_its_first_call_leased_something_meanwhile(
    coordinator: InMemoryCoordinator, service: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = coordinator.node()
    coordinator.submit(a_job(a_task()))

    def lease(tx: Transaction, _: Wakes) -> Sequence[Delivery]:
        """In the place of another coordinator, whose commit ends after this one has looked."""
        node = tx.node_view(machine.key)
        assert node is not None
        claim(tx, node, want=1, poll_seq=1, now=coordinator.now)
        return ()

    coordinator.store.listen(follow=lease, after_commit=lambda _: None)
    monkeypatch.setattr(agent_messages, "current_node", lambda: _identity(machine))

    reply = asyncio.run(service.Poll(_poll(machine), Mock(peer=lambda: "ipv4:10.0.0.1:5000")))

    assert [list(batch.index) for batch in reply.batches] == [[0]]


def _poll(machine: Machine) -> wire.PollRequest:
    return wire.PollRequest(
        session=convert.session_ref_to_wire(machine.session),
        poll_seq=1,
        want=1,
        wait=convert.duration_to_wire(timedelta(0)),
    )


def _identity(machine: Machine) -> AgentIdentity:
    return AgentIdentity(
        node_id=machine.node_id, node_key=machine.key, tenant=DEFAULT_TENANT, cluster=DEFAULT_CLUSTER
    )
