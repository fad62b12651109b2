"""Past attempts in containers, replayed by this machine's engine."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_system import SystemUnderTest, agent_system
from tests.support.archives import a_member, a_tar
from tests.support.container_jobs import an_agent
from tests.support.docker_engine import IMAGE, DockerEngine, docker_engine, why_no_docker
from tests.support.s3_server import s3_server
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import Container, InputMapping

pytestmark = pytest.mark.skipif(bool(why_no_docker()), reason=why_no_docker() or "docker is there")

LINE = (
    "env | grep -E '^(WINDLASS|BATCH|HOME|USER|PWD|PATH)'; cat /data/in/word word; ls -a .; "
    "touch /batchcompute/workdir/made /tmp/made; exit 9"
)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, docker: DockerEngine) -> Iterator[SystemUnderTest]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets/bucket").mkdir(parents=True)
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as running:
        s3.put("bucket/in/word", "word\n")
        asyncio.run(an_agent(running, docker, "default"))
        (directory / "client.toml").write_text(
            f'coordinator = "{running.address}"\ntoken_file = "coordinator/admin.token"\n'
            f'storage_file = "{s3.storage_file(directory / "client-storage.toml")}"\n'
        )
        yield running


def replayed(
    system: SystemUnderTest, docker: DockerEngine, job: JobId, where: Path
) -> "subprocess.CompletedProcess[str]":
    profile = system.directory / "client.toml"
    return subprocess.run(
        [
            *(sys.executable, "-m", "windlass.cli.main", "--profile", str(profile)),
            *("replay", f"{job}/t/0", "--directory", "here"),
        ],
        env=os.environ | {"DOCKER_HOST": f"unix://{docker.socket}"},
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_container_finds_what_it_found_on_its_node(
    system: SystemUnderTest, docker: DockerEngine, tmp_path: Path
) -> None:
    docker.docker("save", "--output", str(tmp_path / "saved.tar"), IMAGE)
    system.s3.put("bucket/saved.tar", (tmp_path / "saved.tar").read_bytes())
    system.s3.put("bucket/word.tar.gz", _package(tmp_path))
    done = asyncio.run(
        system.run(
            "default",
            LINE,
            container=Container(archive="oss://bucket/saved.tar"),
            package="oss://bucket/word.tar.gz",
            inputs=(InputMapping(source="oss://bucket/in/", destination="/data/in"),),
        )
    )
    there = asyncio.run(system.log(done.job_id)).decode()
    assert done.instances[0].attempts[0].exit_code == 9, done.instances
    here = replayed(system, docker, done.job_id, tmp_path)
    assert here.returncode == 9, here.stderr
    assert sorted(here.stdout.splitlines()) == sorted(there.splitlines())
    assert "word\n" in here.stdout
    assert (tmp_path / "here/work/made").exists()
    assert (tmp_path / "here/tmp/made").exists()
    assert docker.containers() == []


def _package(folder: Path) -> bytes:
    return a_tar(folder / "p.tar.gz", a_member("word", content=b"packed\n")).read_bytes()
