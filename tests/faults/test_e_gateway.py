"""What holds for inputs and outputs over the embedded server, on a Ceph gateway: the same tests, in the full
profile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.mounts.conftest import attempt, fill, root, storages
from tests.conformance.mounts.test_every_way import *  # noqa: F403  (its tests)
from tests.integration.agent_steps.test_outputs import *  # noqa: F403  (its tests)
from tests.integration.agent_steps.test_uploads_resumed import *  # noqa: F403  (its tests)
from tests.integration.agent_steps.test_uploads_resumed import uploads, way
from tests.support.ceph_gateway import ceph_gateway, why_no_ceph
from tests.support.coordinator import InMemoryCoordinator
from tests.support.gateway_store import GatewayStore
from tests.support.output_attempts import OutputWorld

__all__ = ["attempt", "root", "storages", "uploads", "way"]


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStore]:
    if not request.config.getoption("full", default=False):
        pytest.skip("a Ceph is heavy: tried by make faults (--full)")
    if why_no_ceph():
        pytest.skip(why_no_ceph())
    with ceph_gateway(tmp_path_factory.mktemp("ceph")) as profile:
        store = GatewayStore(
            endpoint=profile.endpoint, access_key=profile.access_key, secret=profile.secret_key
        )
        fill(store)
        yield store


@pytest.fixture
def world(s3: GatewayStore, tmp_path: Path) -> Iterator[OutputWorld]:
    with InMemoryCoordinator() as coordinator:
        yield OutputWorld(coordinator, s3, tmp_path)
