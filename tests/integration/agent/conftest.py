"""One docker daemon for all tests here that need it; why there is none where there is none."""

from collections.abc import Iterator

import pytest

from tests.support.docker_engine import DockerEngine, docker_engine, why_no_docker


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    missing = why_no_docker()
    if missing:
        pytest.skip(missing)
    with docker_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine
