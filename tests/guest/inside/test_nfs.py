"""Network inputs through the real `mount.nfs`, a kernel that knows NFS, and real servers of both versions."""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from tests.support.nfs_server import NfsServer, ganesha, rclone_nfs
from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import BadMapping, MountRequest, StorageUnavailable, TransferCancelled
from windlass_agent.mounts.kernel import mount_entries
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.network_mount import NetworkMounts, NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits, NodeMounts
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import StorageProfiles, parse_location

SOFT = "soft,timeo=10,retrans=1"
"""Who reads gets an error two seconds after the server has gone."""
NEVER_BLOCKED_S = 20.0
"""Far above what anything takes here, far below what NFS waits by itself."""


class Node:
    """An attempt's directory and the mounter as an agent with mount.nfs has it."""

    def __init__(self, directory: Path, *, within_s: float = 60.0) -> None:
        self.root = directory / "attempt, one"
        (self.root / "work").mkdir(parents=True)
        networks = NetworkMounts(
            NetworkPolicy(hosts=("127.0.0.1",), within_s=within_s), program="/usr/sbin/mount.nfs"
        )
        self.mounter = NodeMounts(
            MountLimits(start_s=10.0, probe_s=8.0),
            rclone="/bin/false",
            boot_id="this-boot",
            network=networks,
            local=LocalDirectories([]),
        )

    def mount(self, *inputs: InputMapping, locks: bool = False, cancelled: Event | None = None) -> list[Path]:
        request = MountRequest(
            root=self.root,
            inputs=tuple(
                InputMount(
                    mapping=mapping,
                    location=parse_location(mapping.source),
                    directory=self.root / "work" / mapping.destination,
                )
                for mapping in inputs
            ),
            locks=locks,
        )
        nothing = Storages(StorageProfiles(by_scheme={}), threads=1)
        self.mounter.mount(request, nothing, cancelled=cancelled or Event())
        return [one.directory for one in request.inputs]

    def mounts(self) -> list[str]:
        return [entry.point for entry in mount_entries() if entry.point.startswith(f"{self.root}/")]


def an_input(
    server: NfsServer, options: str = SOFT, *, path: str | None = None, to: str = "in", writable: bool = False
) -> InputMapping:
    return InputMapping(
        source=server.url(path), destination=to, options=f"{server.options},{options}", writable=writable
    )


def within(act: Callable[[], None]) -> None:
    """Ends with an error, where the action itself would never end."""
    thread = Thread(target=act, daemon=True)
    thread.start()
    thread.join(NEVER_BLOCKED_S)
    assert not thread.is_alive(), f"it took more than {NEVER_BLOCKED_S:g} s"


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    with ganesha(tmp_path_factory.mktemp("v4")) as server:
        yield server


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    with rclone_nfs(tmp_path_factory.mktemp("v3")) as server:
        yield server


@pytest.fixture(params=["v4", "v3"])
def server(request: pytest.FixtureRequest) -> NfsServer:
    """Of either version."""
    server: NfsServer = request.getfixturevalue(request.param)
    (server.root / "sub dir").mkdir(exist_ok=True)
    (server.root / "sub dir/f").write_bytes(b"served" * 100_000)
    return server


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.mounter.release(node.root)
    assert node.mounts() == []


def test_an_export_is_read_and_cannot_be_written(node: Node, server: NfsServer) -> None:
    (seen,) = node.mount(an_input(server))
    assert "sub dir" in os.listdir(seen)
    assert (seen / "sub dir/f").read_bytes() == b"served" * 100_000
    with pytest.raises(OSError, match="Read-only"):
        (seen / "new").touch()
    with pytest.raises(OSError, match="Read-only"):
        (seen / "sub dir/f").unlink()
    with pytest.raises(OSError, match="Read-only"):
        (seen / "sub dir").chmod(0o700)
    # Nor below its place, where the kernel mounted it.
    with pytest.raises(OSError, match="Read-only"):
        (node.root / "inputs/net/0/new").touch()
    assert node.mounter.verdict(node.root) == ""
    node.mounter.release(node.root)
    assert (node.mounts(), list(seen.iterdir())) == ([], [])


def test_what_is_written_where_it_may_be_lies_on_the_server(node: Node, server: NfsServer) -> None:
    reads, writes = node.mount(an_input(server, to="reads"), an_input(server, to="writes", writable=True))
    (writes / "result").write_text("written\n")
    with pytest.raises(OSError, match="Read-only"):
        (reads / "new").touch()
    node.mounter.release(node.root)
    until_s = time.monotonic() + 60  # rclone keeps what it got for a moment
    while not (server.root / "result").exists():
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert (server.root / "result").read_text() == "written\n"


def test_options_of_the_task_reach_the_kernel_with_those_that_protect_the_node(
    node: Node, v4: NfsServer
) -> None:
    (seen,) = node.mount(an_input(v4, "vers=4.1,soft,timeo=70,noresvport,actimeo=0"))
    lines = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    below, place = (
        next(line[3].split(",") for line in lines if line[2] == "nfs4" and line[1].endswith(end))
        for end in ("net/0", "work/in")
    )
    assert {"vers=4.1", "soft", "timeo=70", "noresvport", "ro", "nosuid", "nodev"} <= set(below)
    assert {"ro", "nosuid", "nodev"} <= set(place)
    assert seen.is_mount()


def test_locks_of_one_mount_are_seen_through_another_when_asked_for(node: Node, v4: NfsServer) -> None:
    inputs = [an_input(v4, f"{SOFT},nosharecache", to=to, writable=True) for to in ("one", "other")]
    one, other = node.mount(*inputs, locks=True)
    with (one / "locked").open("w") as holder, (other / "locked").open("r+") as late:
        fcntl.lockf(holder, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(late, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_locks_work_within_the_node_also_where_the_server_has_none(node: Node, v3: NfsServer) -> None:
    (seen,) = node.mount(an_input(v3, writable=True))
    with (seen / "locked").open("w") as holder, (seen / "locked").open("r+") as late:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(late, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_export_that_is_not_there_is_the_users_mistake(node: Node, v4: NfsServer) -> None:
    with pytest.raises(BadMapping, match=r"127\.0\.0\.1:/none.*No such file or directory"):
        node.mount(an_input(v4, path="/none"))
    assert node.mounts() == []


def test_an_export_for_others_is_the_users_mistake(node: Node, v4: NfsServer) -> None:
    with pytest.raises(BadMapping, match=r"127\.0\.0\.1:/others"):
        node.mount(an_input(v4, path="/others"))
    assert node.mounts() == []


def test_a_missing_export_takes_off_what_was_mounted_before_it(node: Node, v4: NfsServer) -> None:
    with pytest.raises(BadMapping):
        node.mount(an_input(v4, to="there"), an_input(v4, path="/none", to="not"))
    assert node.mounts() == []


@pytest.mark.parametrize("version", ["vers=4.2", "vers=3,mountport=9,mountproto=tcp"])
def test_where_no_server_is_the_storage_is_unavailable(node: Node, version: str) -> None:
    nobody = InputMapping(
        source="nfs://127.0.0.1:/x", destination="in", options=f"{version},port=9,proto=tcp,retry=0"
    )
    with pytest.raises(StorageUnavailable, match="refused"):
        node.mount(nobody)
    assert node.mounts() == []


def test_a_server_that_is_silent_is_given_up_and_mounts_nothing_later(tmp_path: Path) -> None:
    node = Node(tmp_path, within_s=3.0)
    with ganesha(tmp_path) as server:
        server.stop()
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match="does not answer within 3 s"):
            node.mount(an_input(server, "hard"))
        assert time.monotonic() - began < NEVER_BLOCKED_S
        server.go_on()
        other = Node(tmp_path / "other")
        other.mount(an_input(server))  # so it has answered whatever it had been asked before
        other.mounter.release(other.root)
        assert node.mounts() == []


def test_a_stopped_attempt_does_not_wait_for_a_silent_server(node: Node, tmp_path: Path) -> None:
    cancelled = Event()
    with ganesha(tmp_path) as server:
        server.stop()
        timer = Timer(1.0, cancelled.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(TransferCancelled):
            node.mount(an_input(server, "hard"), cancelled=cancelled)
        assert time.monotonic() - began < NEVER_BLOCKED_S
        timer.join()


@pytest.mark.parametrize(
    ("serve", "how", "options"),
    [(ganesha, "killed", SOFT), (ganesha, "silent", "hard"), (rclone_nfs, "killed", "hard")],
)
def test_a_server_that_goes_while_a_command_reads_does_not_hold_the_agent(
    node: Node,
    tmp_path: Path,
    serve: Callable[[Path], AbstractContextManager[NfsServer]],
    how: str,
    options: str,
) -> None:
    with serve(tmp_path) as server:
        for name in ("first", "second"):
            (server.root / name).write_text("served")
        (seen,) = node.mount(an_input(server, options))
        assert (seen / "first").read_text() == "served"
        server.go(how)
        with subprocess.Popen(["cat", seen / "second"], stderr=subprocess.DEVNULL) as reader:
            within(lambda: node.mounter.look_after(node.root))
            said = node.mounter.verdict(node.root)
            assert said.startswith("the mount of the inputs cannot be used any more"), said
            within(lambda: node.mounter.release(node.root))
            assert (node.mounts(), os.listdir(seen)) == ([], [])
            reader.kill()
            reader.wait(NEVER_BLOCKED_S)


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_mount_that_nobody_reads_is_taken_off_though_its_server_cannot_be_told(
    node: Node, tmp_path: Path, how: str
) -> None:
    with ganesha(tmp_path) as server:
        (seen,) = node.mount(an_input(server, "hard"))
        assert list(seen.iterdir()) == []
        server.go(how)
        within(lambda: node.mounter.release(node.root))
        assert node.mounts() == []


def test_a_soft_mount_gives_its_reader_an_error(node: Node, tmp_path: Path) -> None:
    with ganesha(tmp_path) as server:
        (server.root / "f").write_text("served")
        (seen,) = node.mount(an_input(server))
        server.kill()
        done = subprocess.run(["cat", seen / "f"], capture_output=True, timeout=60, check=False)
        assert (done.returncode, b"Input/output error" in done.stderr) == (1, True), done.stderr
