"""A coordinator, and an S3 server that only a stored secret opens: the agents have no profile for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent_system import SystemUnderTest, agent_system
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _a_server(tmp_path_factory.mktemp("closed"), secret="canary-9d41-of-the-closed-server") as server:
        yield server


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    with _a_server(tmp_path_factory.mktemp("nodes-own")) as own, agent_system(directory, own) as running:
        yield running


@contextmanager
def _a_server(root: Path, *, secret: str = "test-secret") -> Iterator[S3Server]:
    (root / "bucket").mkdir()
    with s3_server(root, secret=secret) as server:
        yield server
