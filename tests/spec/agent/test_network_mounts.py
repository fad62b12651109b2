"""What `mount.nfs` is told, word for word, and what a node allows."""

from pathlib import Path

import pytest

from windlass_agent.mounts.base import BadMapping, StorageUnavailable
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.network_mount import NetworkMounts, NetworkPolicy, mount_options
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import LocalLocation, NetworkLocation, parse_location

POINT = Path("/state/attempts/1.0.1/inputs/net/0")
POLICY = NetworkPolicy(hosts=("10.0.0.5", "*.nas.example.com", "[fd00::5]"))


def the_command(
    source: str,
    *,
    policy: NetworkPolicy = POLICY,
    writable: bool = False,
    options: str = "",
    locks: bool = False,
) -> list[str]:
    mapping = InputMapping(source=source, destination="in", writable=writable, options=options)
    location = parse_location(source)
    assert isinstance(location, NetworkLocation)
    mounts = NetworkMounts(policy, program="/sbin/mount.nfs")
    return mounts.command(location, mapping, POINT, locks=locks)


def the_options(source: str = "nfs://10.0.0.5:/data", **given: object) -> str:
    return the_command(source, **given)[-1]  # type: ignore[arg-type]  # the same names, checked there


@pytest.mark.parametrize(
    ("source", "export"),
    [
        ("nfs://10.0.0.5:/data/set", "10.0.0.5:/data/set"),
        ("nfs://10.0.0.5/data", "10.0.0.5:/data"),
        ("nas://x1.nas.example.com:/", "x1.nas.example.com:/"),
        ("nas://X1.NAS.example.com:!/share", "X1.NAS.example.com:/share"),
        ("cfs://10.0.0.5/a b,rw,-o x", "10.0.0.5:/a b,rw,-o x"),
        ("nfs://[fd00::5]:/data", "[fd00::5]:/data"),
    ],
)
def test_server_and_path_are_one_argument_and_never_options(source: str, export: str) -> None:
    assert the_command(source) == [
        *("/sbin/mount.nfs", export, str(POINT), "-o", "nolock,ro,nosuid,nodev"),
    ]


def test_a_mount_is_read_only_without_locks_unless_the_task_says_otherwise() -> None:
    assert the_options() == "nolock,ro,nosuid,nodev"
    assert the_options(writable=True) == "nolock,rw,nosuid,nodev"
    assert the_options(locks=True) == "ro,nosuid,nodev"
    assert the_options(locks=True, options="nolock") == "ro,nosuid,nodev"
    assert the_options(options="local_lock=flock") == "local_lock=flock,ro,nosuid,nodev"


def test_the_tasks_options_come_after_the_nodes_and_what_protects_the_node_is_last() -> None:
    policy = NetworkPolicy(hosts=("*",), options="vers=4.1,hard,timeo=600")
    said = the_options(policy=policy, options="noresvport,vers=3")
    assert said == "hard,timeo=600,noresvport,vers=3,nolock,ro,nosuid,nodev"


@pytest.mark.parametrize(
    "option",
    [
        "suid",
        "dev",
        "rw",
        "exec=1",
        "vers=4 -o suid",
        "vers=4\nsuid",
        "-o",
        "vers==4",
        "context=x",
        "vers='4'",
    ],
)
def test_no_option_gives_what_the_node_keeps_to_itself(option: str) -> None:
    with pytest.raises(BadMapping, match="is none that a task can have"):
        mount_options((option,), writable=False, locks=False)


@pytest.mark.parametrize("host", ["10.0.0.6", "nas.example.com", "10.0.0.5.evil.com"])
def test_only_servers_that_the_node_allows_are_mounted(host: str) -> None:
    with pytest.raises(BadMapping, match=r"network\.hosts: 10\.0\.0\.5"):
        the_command(f"nfs://{host}:/data")


def test_a_node_that_was_told_nothing_mounts_nothing() -> None:
    with pytest.raises(BadMapping, match=r"network\.hosts: none"):
        the_command("nfs://10.0.0.5:/data", policy=NetworkPolicy())


def test_a_node_without_the_program_says_so() -> None:
    location = parse_location("nfs://10.0.0.5:/data")
    assert isinstance(location, NetworkLocation)
    mapping = InputMapping(source=str(location), destination="in")
    with pytest.raises(StorageUnavailable, match=r"has no mount\.nfs"):
        NetworkMounts(POLICY, program=None).command(location, mapping, POINT, locks=False)


def test_local_directories_are_those_that_are_allowed_also_through_links(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "data").mkdir(parents=True)
    secret.mkdir()
    (allowed / "way out").symlink_to(secret)
    (tmp_path / "way in").symlink_to(allowed)
    directories = LocalDirectories([tmp_path / "way in"])
    assert directories.directory(LocalLocation(path=f"{allowed}/data")) == allowed / "data"
    assert directories.directory(LocalLocation(path=f"{tmp_path}/way in")) == allowed
    for path in (secret, allowed / "way out", tmp_path, Path("/"), Path(f"{allowed}-else")):
        with pytest.raises(BadMapping, match=r"local\.directories"):
            directories.directory(LocalLocation(path=str(path)))
    with pytest.raises(BadMapping, match="no such directory"):
        directories.directory(LocalLocation(path=f"{allowed}/none"))
