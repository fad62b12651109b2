"""One coordinator and one S3 server for all tests here; each test has nodes and a cluster of its own."""

from collections.abc import Iterator

import pytest

from tests.support.agent_system import SystemUnderTest, agent_system
from tests.support.s3_server import s3_server


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets/bucket").mkdir(parents=True)
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as running:
        yield running
