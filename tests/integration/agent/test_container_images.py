"""Where images come from: registries with and without a login, archives and registries in object storage."""

import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.support.docker_engine import IMAGE, DockerEngine, busybox_tar
from tests.support.image_registry import PASSWORD, PROGRAM, USER, image_registry
from tests.support.s3_server import S3Server, s3_server
from windlass_agent.containers.base import BadImage, EngineSetting, EngineUnavailable, Image
from windlass_agent.containers.images import ImageRequest
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import BadMapping
from windlass_proto.model.secrets import Login
from windlass_proto.model.specs import Container

DEADLINE_S = 60.0
needs_registry = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"needs {PROGRAM} (requirements/test_tools.sh)"
)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    root = tmp_path_factory.mktemp("buckets")
    (root / "bucket").mkdir()
    with s3_server(root) as server:
        yield server


class Node:
    def __init__(self, home: Path, docker: DockerEngine, s3: S3Server) -> None:
        setting = EngineSetting(engine="docker", socket=str(docker.socket), options=())
        self.home = home
        self.containers = NodeContainers(setting, home=home, place="test")
        self._storages = Storages(s3.profiles(), threads=2)

    def obtain(self, container: Container, *, login: Login | None = None) -> Image:
        return self.containers.obtain(
            ImageRequest(
                container=container,
                login=login,
                storage_for=self._storages.for_scheme,
                timeout_s=DEADLINE_S,
                cancelled=Event(),
            )
        )


@pytest.fixture
def node(tmp_path: Path, docker: DockerEngine, s3: S3Server) -> Node:
    return Node(tmp_path / "containers", docker, s3)


def image_id(docker: DockerEngine, reference: str = IMAGE) -> str:
    return docker.docker("image", "inspect", "--format", "{{.Id}}", reference)


def push(docker: DockerEngine, reference: str) -> str:
    """Its digest; the local name is gone afterwards."""
    docker.docker("tag", IMAGE, reference)
    docker.docker("push", "--quiet", reference)
    digest = docker.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", reference)
    docker.docker("rmi", reference)
    return digest.partition("@")[2]


def test_an_image_that_is_there_is_not_asked_for(node: Node, docker: DockerEngine) -> None:
    own = image_id(docker)
    assert node.obtain(Container(image=IMAGE)) == Image(image_id=own, digest=own)


@needs_registry
def test_an_image_is_pulled_from_its_registry_and_known_by_the_registrys_digest(
    node: Node, docker: DockerEngine, tmp_path: Path
) -> None:
    with image_registry(tmp_path / "images", tmp_path) as registry:
        reference = f"{registry.address}/team/tool:1"
        digest = push(docker, reference)
        found = node.obtain(Container(image=reference))
    assert found == Image(image_id=image_id(docker), digest=digest)
    assert node.obtain(Container(image=reference)) == found, "it is there, the registry is not needed"
    docker.docker("rmi", reference)


@needs_registry
def test_an_image_that_its_registry_does_not_have_is_the_users_mistake(
    node: Node, docker: DockerEngine, tmp_path: Path
) -> None:
    with image_registry(tmp_path / "images", tmp_path) as registry:
        with pytest.raises(BadImage, match="nothing:1 could not be pulled"):
            node.obtain(Container(image=f"{registry.address}/nothing:1"))
        address = registry.address
    with pytest.raises(EngineUnavailable, match="connection refused"):
        node.obtain(Container(image=f"{address}/nothing:1"))


@needs_registry
def test_a_login_opens_a_registry_and_nothing_of_it_stays(
    node: Node, docker: DockerEngine, tmp_path: Path
) -> None:
    with image_registry(tmp_path / "images", tmp_path) as registry:
        push(docker, f"{registry.address}/tool:1")
    with image_registry(tmp_path / "images", tmp_path, auth=True) as registry:
        wanted = Container(image=f"{registry.address}/tool:1", login="ours")
        with pytest.raises(BadImage):
            node.obtain(Container(image=wanted.image))
        with pytest.raises(BadImage, match="login ours was not taken"):
            node.obtain(wanted, login=Login(username=USER, password="another"))
        found = node.obtain(wanted, login=Login(username=USER, password=PASSWORD))
    assert found.image_id == image_id(docker)
    left = [path for path in node.home.rglob("*") if path.is_file()]
    assert not [path for path in left if PASSWORD in path.read_text(errors="replace")]
    assert not list(node.home.glob("login-*"))
    docker.docker("rmi", wanted.image)


def test_an_archive_of_an_image_is_loaded_once(
    node: Node, docker: DockerEngine, s3: S3Server, tmp_path: Path
) -> None:
    docker.docker("save", "--output", str(tmp_path / "saved.tar"), IMAGE)
    s3.put("bucket/saved.tar", (tmp_path / "saved.tar").read_bytes())
    own = image_id(docker)
    assert node.obtain(Container(archive="oss://bucket/saved.tar")).image_id == own
    assert node.obtain(Container(archive="oss://bucket/saved.tar", image=IMAGE)).image_id == own
    with pytest.raises(BadImage, match="not another:1"):
        node.obtain(Container(archive="oss://bucket/saved.tar", image="another:1"))


def test_an_archive_of_a_file_system_becomes_an_image_and_a_new_one_another(
    node: Node, docker: DockerEngine, s3: S3Server
) -> None:
    s3.put("bucket/files.tar", busybox_tar())
    wanted = Container(archive="oss://bucket/files.tar")
    first = node.obtain(wanted)
    assert node.obtain(wanted) == first
    s3.put("bucket/files.tar", busybox_tar() + bytes(10240))
    assert node.obtain(wanted) != first


@pytest.mark.parametrize("content", [b"no tar at all", b""])
def test_what_is_no_archive_is_the_users_mistake(node: Node, s3: S3Server, content: bytes) -> None:
    s3.put("bucket/bad.tar", content)
    with pytest.raises(BadImage, match="no tar of an image"):
        node.obtain(Container(archive="oss://bucket/bad.tar"))


def test_an_archive_that_is_not_there_is_the_users_mistake(node: Node) -> None:
    with pytest.raises(BadMapping, match="nowhere"):
        node.obtain(Container(archive="oss://bucket/nowhere.tar"))


@needs_registry
def test_a_registry_that_lies_in_object_storage_is_served_for_as_long_as_it_is_needed(
    node: Node, docker: DockerEngine, s3: S3Server, tmp_path: Path
) -> None:
    with image_registry(s3.root / "bucket/dockers", tmp_path) as registry:
        digest = push(docker, f"{registry.address}/tool:1")
    # The server looks at its disk now and then only.
    for path in (s3.root / "bucket/dockers").rglob("*"):
        if path.is_file():
            s3.put(str(path.relative_to(s3.root)), path.read_bytes())
    wanted = Container(image="localhost:5000/tool:1", registry="oss://bucket/dockers/")
    found: list[Image] = []
    several = [threading.Thread(target=lambda: found.append(node.obtain(wanted))) for _ in range(3)]
    for one in several:
        one.start()
    for one in several:
        one.join(DEADLINE_S)
    assert found == [Image(image_id=image_id(docker), digest=digest)] * 3
    assert not list(node.home.glob("registry-*"))
    with pytest.raises(BadImage, match="manifest unknown"):
        node.obtain(Container(image="tool:2", registry="oss://bucket/dockers/"))
    with pytest.raises((BadImage, EngineUnavailable)):
        node.obtain(Container(image="tool:1", registry="oss://no-such-bucket/dockers/"))


def test_a_node_that_wants_no_containers_says_so(tmp_path: Path) -> None:
    setting = EngineSetting(engine="none", socket="", options=())
    with pytest.raises(EngineUnavailable, match=r"work\.container_engine"):
        NodeContainers(setting, home=tmp_path / "c", place="test").engine()


def test_an_engine_that_does_not_answer_is_told_with_its_reason(tmp_path: Path) -> None:
    setting = EngineSetting(engine="docker", socket=str(tmp_path / "nobody.sock"), options=())
    with pytest.raises(EngineUnavailable, match="no container engine that works"):
        NodeContainers(setting, home=tmp_path / "c", place="test").engine()
