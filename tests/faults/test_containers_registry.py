"""A registry in object storage, in the full profile: pushed to and pulled from on a Ceph gateway."""

from pathlib import Path
from threading import Event

import boto3
import pytest

from tests.faults.scenarios import FaultProfile
from tests.support.ceph_gateway import ceph_gateway, why_no_ceph
from tests.support.docker_engine import IMAGE, docker_engine, why_no_docker
from tests.support.image_registry import PROGRAM, image_registry
from windlass_agent.containers.base import BadImage, EngineSetting
from windlass_agent.containers.images import ImageRequest
from windlass_agent.containers.local_registry import registry_settings
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.mounts import Storages
from windlass_proto.model.specs import Container
from windlass_proto.model.storage import StorageProfiles, parse_object_url

_MISSING = why_no_docker() or why_no_ceph() or ("" if PROGRAM.exists() else f"needs {PROGRAM}")
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "all is there")


@pytest.fixture(autouse=True)
def _in_the_full_profile(profile: FaultProfile) -> None:
    if not profile.is_full:
        pytest.skip("tried by make faults")


def test_what_is_pushed_to_a_bucket_is_what_nodes_pull_from_it(tmp_path: Path) -> None:
    home = parse_object_url("oss://images/dockers/")
    for name in ("ceph", "docker"):
        (tmp_path / name).mkdir()
    with ceph_gateway(tmp_path / "ceph") as profile, docker_engine(tmp_path / "docker") as docker:
        client = boto3.client(
            "s3",
            endpoint_url=profile.endpoint,
            region_name=profile.region,
            aws_access_key_id=profile.access_key,
            aws_secret_access_key=profile.secret_key,
        )
        client.create_bucket(Bucket="images")
        bucket = registry_settings(home, profile, "")["storage"]["s3"]
        with image_registry(tmp_path, tmp_path, bucket=bucket) as registry:
            reference = f"{registry.address}/tool:1"
            docker.docker("tag", IMAGE, reference)
            docker.docker("push", "--quiet", reference)
            pushed = docker.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", reference)
            docker.docker("rmi", reference)
            docker.docker("rmi", IMAGE)
        setting = EngineSetting(engine="docker", socket=str(docker.socket), options=())
        node = NodeContainers(setting, home=tmp_path / "containers", place="test")
        storages = Storages(StorageProfiles(by_scheme={"oss": profile}), threads=2)

        def request(image: str) -> ImageRequest:
            return ImageRequest(
                container=Container(image=image, registry=str(home)),
                login=None,
                storage_for=storages.for_scheme,
                timeout_s=120.0,
                cancelled=Event(),
            )

        assert node.obtain(request("localhost:5000/tool:1")).digest == pushed.partition("@")[2]
        with pytest.raises(BadImage, match="manifest unknown"):
            node.obtain(request("localhost:5000/tool:2"))
