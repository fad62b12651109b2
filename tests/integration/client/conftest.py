"""A real S3 server for the client's tests, started as laptop mode starts it."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.laptop import Laptop, Ports, choose_ports
from windlass.profile import Profile
from windlass.store import RemoteFiles
from windlass_proto.errors import Unavailable

READY_WITHIN_S = 20


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A data directory whose store runs; nothing else of it does."""
    laptop = Laptop(tmp_path_factory.mktemp("laptop"))
    laptop.prepare()
    ports = choose_ports(Ports(), before=Ports())
    local = laptop.write_profiles(ports)
    with (laptop.logs / "store.log").open("wb") as log:
        server = subprocess.Popen(
            laptop.store_command(ports), env=laptop.store_environment(local), stdout=log, stderr=log
        )
    try:
        wait_until_ready(RemoteFiles(laptop.profile().storage()), server)
        yield laptop
    finally:
        server.terminate()
        server.wait(READY_WITHIN_S)


@pytest.fixture
def profile(laptop: Laptop) -> Profile:
    return laptop.profile()


@pytest.fixture
def store(profile: Profile) -> RemoteFiles:
    return RemoteFiles(profile.storage())


@pytest.fixture
def bucket_folder(laptop: Laptop) -> Path:
    return laptop.store / "windlass"


def wait_until_ready(store: RemoteFiles, server: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            store.buckets("oss")
        except Unavailable:
            assert server.poll() is None, "the store's server has ended"
            assert time.monotonic() < give_up_at, "the store's server does not answer"
        else:
            return
