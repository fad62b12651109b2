"""An attempt's directory, a real object store, and both ways in which inputs come to commands."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from tests.support.gateway_store import GatewayStore
from tests.support.s3_server import S3Server, s3_server
from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts import InputWay, Storages, open_mounter
from windlass_agent.mounts.base import InputMounter, MountRequest
from windlass_agent.mounts.fuse_daemon import find_rclone
from windlass_agent.mounts.kernel import mount_entries, why_not_mountable
from windlass_agent.mounts.mounted import read_mounted
from windlass_agent.mounts.network_mount import NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import StorageProfiles, parse_location

BOOT = "this-boot"


def why_not() -> str:
    return why_not_mountable(find_rclone())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("store")) as server:
        fill(server)
        yield server


def fill(server: S3Server | GatewayStore) -> None:
    """With what the tests map."""
    server.make_bucket("data")
    server.make_bucket("other")
    server.put("data/small/a.txt", "alpha")
    server.put("data/small/sub dir/b.txt", "beta")
    server.put("data/small/sub dir/deep/c.txt", "gamma")
    server.put("other/tools/run.sh", "#!/bin/sh\necho ran\n")
    server.put("data/names/文件.txt", "chinese")
    server.put("data/names/目录/数据.txt", "deeper")


@pytest.fixture(scope="session")
def storages(s3: S3Server) -> Storages:
    """A client is dear to make."""
    return Storages(s3.profiles(), threads=4)


@dataclass(slots=True, kw_only=True)
class Attempt:
    root: Path
    s3: S3Server | GatewayStore
    storages: Storages
    mounter: InputMounter
    way: InputWay = InputWay.MOUNT

    @property
    def work(self) -> Path:
        return self.root / "work"

    def an_input(self, source: str, destination: str) -> InputMount:
        mapping = InputMapping(source=source, destination=destination)
        return InputMount(mapping=mapping, location=parse_location(source), directory=self.work / destination)

    def mount(
        self,
        *inputs: tuple[str, str],
        codec: str = "",
        profiles: StorageProfiles | None = None,
        cancelled: Event | None = None,
    ) -> None:
        request = MountRequest(
            root=self.root, inputs=tuple(self.an_input(*one) for one in inputs), codec=codec
        )
        for one in request.inputs:
            one.directory.parent.mkdir(parents=True, exist_ok=True)
            if not one.directory.is_symlink():
                one.directory.mkdir(exist_ok=True)
        storages = Storages(profiles, threads=4) if profiles else self.storages
        self.mounter.mount(request, storages, cancelled=cancelled or Event())

    def tree(self, destination: str) -> dict[str, bytes]:
        """Every file below, by name."""
        top = os.fsencode(self.work / destination)
        found = {}
        for root, _, names in os.walk(top):
            for name in names:
                path = os.path.join(root, name)
                with open(path, "rb") as file:
                    found[os.fsdecode(os.path.relpath(path, top))] = file.read()
        return found

    def mounts(self) -> list[str]:
        return [entry.point for entry in mount_entries() if entry.point.startswith(f"{self.root}/")]

    def daemon_pid(self) -> int:
        mounted = read_mounted(self.root)
        assert mounted is not None
        assert mounted.daemon is not None
        return mounted.daemon.pid


def a_mounter(
    way: InputWay, *, local: tuple[Path, ...] = (), survey_most: int = 10_000, probe_s: float = 30.0
) -> InputMounter:
    limits = MountLimits(survey_most=survey_most, probe_s=probe_s)
    return open_mounter(way, limits, boot_id=BOOT, network=NetworkPolicy(), local=local)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "attempt, with a comma:and=more"
    (root / "work").mkdir(parents=True)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def _attempt(root: Path, s3: S3Server, storages: Storages, way: InputWay) -> Iterator[Attempt]:
    if way is InputWay.MOUNT and why_not():
        pytest.skip(f"nothing can be mounted here: {why_not()}")
    attempt = Attempt(root=root, s3=s3, storages=storages, mounter=a_mounter(way), way=way)
    yield attempt
    attempt.mounter.release(root)
    assert attempt.mounts() == []


@pytest.fixture(params=[InputWay.MOUNT, InputWay.COPY])
def attempt(
    request: pytest.FixtureRequest, root: Path, s3: S3Server, storages: Storages
) -> Iterator[Attempt]:
    """Whichever way."""
    yield from _attempt(root, s3, storages, request.param)


@pytest.fixture
def mounted(root: Path, s3: S3Server, storages: Storages) -> Iterator[Attempt]:
    """Where mounts are promised more of than copies."""
    yield from _attempt(root, s3, storages, InputWay.MOUNT)
