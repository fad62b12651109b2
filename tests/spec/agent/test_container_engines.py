"""What docker and podman are told, word for word."""

from dataclasses import replace
from pathlib import Path

import pytest

from windlass_agent.containers.arguments import read_image, registry_of, repository_of
from windlass_agent.containers.base import (
    BadImage,
    ContainerEngine,
    ContainerLimits,
    ContainerMount,
    ContainerPlan,
    EngineUnavailable,
    Image,
)
from windlass_agent.containers.client import Answer
from windlass_agent.containers.docker import Docker
from windlass_agent.containers.images import why_not_pulled, without_host
from windlass_agent.containers.local_registry import registry_settings
from windlass_agent.containers.podman import Podman
from windlass_agent.containers.run_file import environment_lines, passes_mounts_on
from windlass_proto.model.environment import environment_inside
from windlass_proto.model.storage import ObjectLocation, StorageProfile

DOCKER = Docker(client="/usr/bin/docker", socket="/run/d.sock", home="/state/containers", has_init=True)
PODMAN = Podman(client="/usr/bin/podman", runtime="/usr/bin/runc", home="/state/containers", has_init=False)
ENGINES: list[ContainerEngine] = [DOCKER, PODMAN]
PLAN = ContainerPlan(
    name="windlass-fe00-1-7.0.1",
    image="sha256:abc",
    argv=("/bin/sh", "-c", "echo $HOME"),
    label="windlass.place=fe00-1",
    work_dir="/batchcompute/workdir",
    network="host",
    mounts=(
        ContainerMount(source="/state/attempts/7.0.1/work", target="/batchcompute/workdir"),
        ContainerMount(source="/state/attempts/7.0.1/mounts/0", target="/data", is_slave=True),
    ),
    limits=ContainerLimits(cpu=1.5, memory_bytes=1 << 26, pids=100, open_files=1024),
    env_file="/state/attempts/7.0.1/container.env",
    id_file="/state/attempts/7.0.1/container.id",
)
SHARED = (
    *("create", "--name", "windlass-fe00-1-7.0.1", "--label", "windlass.place=fe00-1"),
    *("--cidfile", "/state/attempts/7.0.1/container.id"),
    *("--user", "0:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--network", "host", "--log-driver", "none"),
    *("--env-file", "/state/attempts/7.0.1/container.env"),
    *("--workdir", "/batchcompute/workdir", "--entrypoint", ""),
    *("--cpus", "1.5", "--memory", "67108864", "--memory-swap", "67108864"),
    *("--pids-limit", "100", "--ulimit", "nofile=1024:1024"),
    *("--mount", "type=bind,source=/state/attempts/7.0.1/work,target=/batchcompute/workdir"),
    *("--mount", "type=bind,source=/state/attempts/7.0.1/mounts/0,target=/data,bind-propagation=rslave"),
)
COMMAND = ("sha256:abc", "/bin/sh", "-c", "echo $HOME")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_group_by_which_a_container_is_known_is_one_more_of_its_users(engine: ContainerEngine) -> None:
    words = engine.create(replace(PLAN, group=900_000_099))
    assert words[words.index("--group-add") + 1] == "900000099"
    assert "--group-add" not in engine.create(PLAN)


def test_docker_makes_a_container_without_powers_in_its_limits() -> None:
    assert DOCKER.create(PLAN) == (*SHARED, "--init", *COMMAND)


def test_podman_makes_the_same_from_what_is_there_already() -> None:
    expected = (*SHARED, "--pull", "never", "--ulimit", "nproc=4096:4096", *COMMAND)
    assert PODMAN.create(PLAN) == expected


def test_a_container_has_the_gpus_of_its_attempt_and_no_others() -> None:
    plan = replace(PLAN, gpus=("1", "GPU-ab12"))
    assert DOCKER.create(plan) == (*SHARED, "--gpus", '"device=1,GPU-ab12"', "--init", *COMMAND)
    given = ("--device", "nvidia.com/gpu=1", "--device", "nvidia.com/gpu=GPU-ab12")
    assert PODMAN.create(plan)[-len(COMMAND) - 4 :] == (*given, *COMMAND)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_what_is_not_limited_is_not_mentioned(engine: ContainerEngine) -> None:
    limits = ContainerLimits(cpu=0, memory_bytes=0, pids=0, open_files=0)
    told = " ".join(engine.create(replace(PLAN, limits=limits, mounts=())))
    for word in ("--cpus", "--memory", "--pids-limit", "nofile", "--mount"):
        assert word not in told


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_nothing_makes_a_container_privileged_or_stays_behind(engine: ContainerEngine) -> None:
    told = engine.create(PLAN)
    assert "--privileged" not in told
    assert engine.remove("c")[:3] == ("rm", "--force", "--volumes")


@pytest.mark.parametrize("path", ["/a,b", '/a"b', "/a\nb"])
def test_a_path_that_would_be_read_as_more_than_a_path_is_refused(path: str) -> None:
    with pytest.raises(BadImage, match="must not hold a comma or a quote"):
        DOCKER.create(replace(PLAN, mounts=(ContainerMount(source="/s", target=path),)))


def test_programs_begin_with_how_the_engine_is_reached_and_get_nothing_of_anybodys_environment() -> None:
    assert DOCKER.program == ("/usr/bin/docker", "--host", "unix:///run/d.sock")
    assert replace(DOCKER, socket="", options=("--debug",)).program == ("/usr/bin/docker", "--debug")
    assert PODMAN.program == ("/usr/bin/podman", "--cgroup-manager", "cgroupfs", "--runtime", "/usr/bin/runc")
    assert [set(engine.env) for engine in ENGINES] == [{"PATH", "HOME"}] * 2


def test_a_login_is_kept_in_a_folder_of_its_own_and_its_password_in_no_argument() -> None:
    folder = Path("/state/containers/login-1")
    assert DOCKER.login("r.example.com", "me", folder) == (
        *("--config", "/state/containers/login-1", "login"),
        *("--username", "me", "--password-stdin", "r.example.com"),
    )
    assert DOCKER.pull("r.example.com/tool:1", folder=folder, is_local=False) == (
        *("--config", "/state/containers/login-1"),
        *("pull", "--quiet", "r.example.com/tool:1"),
    )
    assert PODMAN.login("r.example.com", "me", folder) == (
        *("login", "--authfile", "/state/containers/login-1/auth.json"),
        *("--username", "me", "--password-stdin", "r.example.com"),
    )
    assert PODMAN.pull("r.example.com/tool:1", folder=folder, is_local=False) == (
        *("pull", "--quiet", "--authfile", "/state/containers/login-1/auth.json", "r.example.com/tool:1"),
    )


def test_only_a_registry_of_this_machine_is_asked_without_encryption() -> None:
    assert "--tls-verify=false" in PODMAN.pull("127.0.0.1:5000/tool", folder=None, is_local=True)
    assert "--tls-verify=false" not in PODMAN.pull("r.example.com/tool", folder=None, is_local=False)


def test_the_environment_inside_is_the_services_unless_the_user_says_otherwise() -> None:
    inside = environment_inside({"HOME": "/mine", "USER": "agent", "X": "1"}, {"HOME": "/mine"})
    assert inside == {
        "USER": "root",
        "LOGNAME": "root",
        "HOME": "/mine",
        "PATH": "/sbin:/usr/sbin:/bin:/usr/bin",
        "PWD": "/batchcompute/workdir",
        "TMPDIR": "/tmp",
        "WINDLASS_WORK_DIR": "/batchcompute/workdir",
        "X": "1",
    }


def test_variables_are_lines_and_what_is_more_than_a_line_is_refused() -> None:
    assert environment_lines({"A": "1 = $2 #", "B": ""}) == "A=1 = $2 #\nB=\n"
    with pytest.raises(BadImage, match=r"env\.A: must be one line"):
        environment_lines({"A": "1\n2"})


@pytest.mark.parametrize(
    ("reference", "registry", "repository"),
    [
        ("debian", "docker.io", "debian"),
        ("debian:12", "docker.io", "debian"),
        ("team/tool:1", "docker.io", "team/tool"),
        ("localhost/tool", "localhost", "localhost/tool"),
        ("r.example.com:5000/team/tool:1@sha256:ab", "r.example.com:5000", "r.example.com:5000/team/tool"),
    ],
)
def test_a_reference_names_its_registry_and_its_repository(
    reference: str, registry: str, repository: str
) -> None:
    assert (registry_of(reference), repository_of(reference)) == (registry, repository)


@pytest.mark.parametrize(
    ("image", "name"),
    [("localhost:5000/tool:1", "tool:1"), ("tool", "tool"), ("team/tool", "team/tool"), ("r.io/a/b", "a/b")],
)
def test_an_image_of_a_stored_registry_is_named_without_the_host_it_was_pushed_to(
    image: str, name: str
) -> None:
    assert without_host(image) == name


def test_the_digest_of_an_image_is_its_registrys_or_else_its_own() -> None:
    printed = '[{"Id": "%s", "RepoDigests": ["other@sha256:00", "r.io/tool@sha256:11"]}]'
    assert read_image(printed % "sha256:ab", "r.io/tool:1") == Image(image_id="sha256:ab", digest="sha256:11")
    assert read_image(printed % "ab", "mine") == Image(image_id="sha256:ab", digest="sha256:ab")
    assert read_image('[{"Id": "ab", "RepoDigests": null}]', "x").digest == "sha256:ab"


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: manifest for r/t:2 not found: manifest unknown: manifest unknown",
        "Error response from daemon: pull access denied for t, repository does not exist",
        "Error: initializing source docker://r/t: reading manifest 2 in r/t: manifest unknown",
        "Error response from daemon: unauthorized: authentication required",
    ],
)
def test_an_image_that_is_not_there_is_the_users_business(said: str) -> None:
    assert isinstance(why_not_pulled("r/t:2", Answer(code=1, out="", err=said)), BadImage)


@pytest.mark.parametrize(
    "said",
    [
        'Error response from daemon: Get "http://127.0.0.1:1/v2/": dial tcp: connect: connection refused',
        "Error response from daemon: received unexpected HTTP status: 500 Internal Server Error",
        'Error: Get "https://nosuch/v2/": dial tcp: lookup nosuch: no such host',
        "Error: something that nobody has heard of",
    ],
)
def test_a_registry_that_does_not_answer_is_the_nodes(said: str) -> None:
    assert isinstance(why_not_pulled("r/t:2", Answer(code=1, out="", err=said)), EngineUnavailable)


def test_a_registry_over_a_bucket_can_only_be_read() -> None:
    location = ObjectLocation(scheme="oss", bucket="b", key="dockers/one/")
    profile = StorageProfile(endpoint="http://127.0.0.1:9", access_key="k", secret_key="s")
    settings = registry_settings(location, profile, "127.0.0.1:5000")
    assert settings["http"] == {"addr": "127.0.0.1:5000"}
    assert settings["storage"]["maintenance"]["readonly"] == {"enabled": True}
    assert settings["storage"]["s3"] == {
        "accesskey": "k",
        "secretkey": "s",
        "region": "us-east-1",
        "regionendpoint": "http://127.0.0.1:9",
        "bucket": "b",
        "rootdirectory": "/dockers/one",
        "secure": False,
        "v4auth": True,
        "pathstyle": True,
    }


MOUNTINFO = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 254:0 /s /state rw shared:7 - ext4 /dev/vda rw
31 30 0:5 / /state/attempts/1/mounts/0 ro - fuse.rclone x ro
32 27 0:9 / /other rw master:3 - tmpfs tmpfs rw"""


@pytest.mark.parametrize(
    ("directory", "passes"),
    [
        ("/home", False),
        ("/state", True),
        ("/state/attempts/1", True),
        ("/stateful", False),
        ("/state/attempts/1/mounts/0/sub", False),
        ("/other/x", True),
    ],
)
def test_only_a_shared_mount_passes_on_what_is_mounted_in_it_later(directory: str, passes: bool) -> None:
    assert passes_mounts_on(MOUNTINFO, directory) is passes
