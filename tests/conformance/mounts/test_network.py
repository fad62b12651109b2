"""Network mounts around `mount.nfs`: here a stand-in for it, which mounts a tmpfs or fails as the real one.

The real one needs a kernel that knows NFS; it is tried in a guest.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest

from tests.conformance.mounts.conftest import BOOT, why_not
from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import BadMapping, MountRequest, StorageUnavailable, TransferCancelled
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.network_mount import NetworkMounts, NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits, NodeMounts
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import StorageProfiles, parse_location

MOUNTS_TMPFS = 'mount -t tmpfs -o mode=0777 none "$2" && echo served > "$2/f"'


class Node:
    def __init__(self, directory: Path, script: str, *, within_s: float = 60.0) -> None:
        program = directory / "mount.nfs"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/argv\n{script}\n')
        program.chmod(0o755)
        self.argv = directory / "argv"
        self.root = directory / "attempt"
        (self.root / "work/in").mkdir(parents=True)
        networks = NetworkMounts(NetworkPolicy(hosts=("nas",), within_s=within_s), program=str(program))
        self.mounter = NodeMounts(
            MountLimits(), rclone="/bin/false", boot_id=BOOT, network=networks, local=LocalDirectories([])
        )

    def mount(self, *, writable: bool = False, cancelled: Event | None = None) -> Path:
        mapping = InputMapping(source="nfs://nas:/a b", destination="in", writable=writable)
        one = InputMount(
            mapping=mapping, location=parse_location(mapping.source), directory=self.root / "work/in"
        )
        request = MountRequest(root=self.root, inputs=(one,))
        nothing = Storages(StorageProfiles(by_scheme={}), threads=1)
        self.mounter.mount(request, nothing, cancelled=cancelled or Event())
        return one.directory


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    if why_not():
        pytest.skip(f"nothing can be mounted here: {why_not()}")
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_network_directory_is_seen_and_cannot_be_written_unless_it_may_be(place: Path) -> None:
    node = Node(place, MOUNTS_TMPFS)
    seen = node.mount()
    assert (seen / "f").read_text() == "served\n"
    with pytest.raises(OSError, match="Read-only"):
        (seen / "new").touch()
    assert node.mounter.verdict(node.root) == ""
    node.mounter.release(node.root)
    assert list(seen.iterdir()) == []
    assert node.argv.read_text().splitlines() == [
        *("nas:/a b", str(node.root / "inputs/net/0"), "-o", "nolock,ro,nosuid,nodev"),
    ]
    (node.mount(writable=True) / "new").touch()
    node.mounter.release(node.root)


@pytest.mark.parametrize(
    ("said", "whose"),
    [
        ("mount.nfs: access denied by server while mounting nas:/a b", BadMapping),
        (
            "mount.nfs: mounting nas:/a b failed, reason given by server: No such file or directory",
            BadMapping,
        ),
        ("mount.nfs: Connection refused", StorageUnavailable),
        ("mount.nfs: Protocol not supported", StorageUnavailable),
    ],
)
def test_what_mount_nfs_complains_of_tells_whose_fault_it_is(
    place: Path, said: str, whose: type[Exception]
) -> None:
    node = Node(place, f"echo '{said}' >&2; exit 32")
    with pytest.raises(whose, match=said.rpartition(":")[2].strip()):
        node.mount()


def test_a_server_that_does_not_answer_is_waited_for_until_the_nodes_limit(place: Path) -> None:
    node = Node(place, "exec sleep 600", within_s=0.3)
    with pytest.raises(StorageUnavailable, match=r"does not answer within 0\.3 s"):
        node.mount()


def test_a_stopped_attempt_does_not_wait_for_a_server(place: Path) -> None:
    node = Node(place, "exec sleep 600")
    cancelled = Event()
    timer = Timer(0.2, cancelled.set)
    timer.start()
    with pytest.raises(TransferCancelled):
        node.mount(cancelled=cancelled)
    timer.join()


def test_a_program_that_mounts_nothing_is_not_believed(place: Path) -> None:
    with pytest.raises(StorageUnavailable, match="mounted nothing"):
        Node(place, "true").mount()
