"""One real coordinator for the tests of a module."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.transcript import SpokenAgent, Transcript
from windlass.client import Client
from windlass_proto.v1 import clusters_pb2


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProcess]:
    with CoordinatorProcess(tmp_path_factory.mktemp("coordinator") / "data") as coordinator:
        yield coordinator


@pytest.fixture
async def client(coordinator: CoordinatorProcess) -> AsyncIterator[Client]:
    async with Client(coordinator.profile) as client:
        yield client


@pytest.fixture
async def agent(coordinator: CoordinatorProcess) -> AsyncIterator[SpokenAgent]:
    """An agent with a session, alone in a cluster of its own."""
    transcript = Transcript(coordinator)
    agent = SpokenAgent(transcript, "agent")
    cluster = f"cluster-of-{uuid.uuid4().hex}"
    await transcript.ask("CreateCluster", clusters_pb2.CreateClusterRequest(name=cluster))
    await agent.enter(cluster)
    yield agent
    await transcript.close()
