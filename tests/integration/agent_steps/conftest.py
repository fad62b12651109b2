"""One S3 server for all tests of the steps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinator import InMemoryCoordinator
from tests.support.output_attempts import OutputWorld
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    root: Path = tmp_path_factory.mktemp("buckets")
    (root / "bucket").mkdir()
    with s3_server(root) as server:
        yield server


@pytest.fixture
def world(s3: S3Server, tmp_path: Path) -> Iterator[OutputWorld]:
    with InMemoryCoordinator() as coordinator:
        yield OutputWorld(coordinator, s3, tmp_path)
