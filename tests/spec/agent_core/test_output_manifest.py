"""What a manifest tells, and where staged objects and manifests lie."""

import json
from dataclasses import replace

import pytest

from windlass_agent.core.output_manifest import (
    InstanceName,
    Manifest,
    OutputTarget,
    PublishedFile,
    digest_of,
    files_of,
    twice_named,
)
from windlass_proto.model.ids import AttemptRef, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.storage import parse_object_url

INSTANCE = InstanceName(job_id=JobId("job-1"), task=TaskName("merge"), index=3)
REF = AttemptRef(task_key=TaskKey(9), index=3, attempt=2, fence=Fence(77))
SMALL = PublishedFile(name="a", size_bytes=1, sha256="s", md5="m")
LARGE = PublishedFile(name="b", size_bytes=2, sha256="t", md5="n", parts_etag="p-2")


def target(url: str = "oss://bucket/results/") -> OutputTarget:
    return OutputTarget(location=parse_object_url(url))


def manifest(*files: PublishedFile) -> Manifest:
    return Manifest(instance=INSTANCE, ref=REF, files={target(): files})


@pytest.mark.parametrize(
    ("url", "beside"),
    [("oss://bucket/results/", "results"), ("oss://bucket/deep/results", "deep/results"), ("oss://b", "")],
)
def test_staging_and_manifest_lie_beside_the_directory_apart_by_instance_and_attempt(
    url: str, beside: str
) -> None:
    staging = f"{beside}.windlass-staging/job-1/merge/3/"
    here = target(url)
    assert here.staging(INSTANCE).key == staging
    assert here.staging_of(INSTANCE, REF).key == f"{staging}2-77/"
    assert here.manifest(INSTANCE).key == f"{beside}.windlass-manifests/job-1/merge/3.json"


def test_the_same_outputs_give_the_same_bytes_in_whatever_order_their_targets_came() -> None:
    other = target("oss://bucket/more/")
    files = {target(): (SMALL,), other: (LARGE,)}
    first = Manifest(instance=INSTANCE, ref=REF, files=files)
    second = replace(first, files=dict(reversed(files.items())))
    assert digest_of(first.data()) == digest_of(second.data())
    assert digest_of(first.data()) != digest_of(manifest(SMALL).data())
    assert (first.count, first.size_bytes) == (2, 3)


def test_a_manifest_tells_whose_it_is_and_every_file() -> None:
    assert json.loads(manifest(SMALL, LARGE).data()) == {
        "windlass_manifest": 1,
        "job": "job-1",
        "task": "merge",
        "index": 3,
        "attempt": 2,
        "fence": 77,
        "outputs": [
            {
                "destination": "oss://bucket/results/",
                "files": [
                    {"name": "a", "bytes": 1, "sha256": "s", "md5": "m"},
                    {"name": "b", "bytes": 2, "sha256": "t", "md5": "n", "parts_etag": "p-2"},
                ],
            }
        ],
        "left_out": [],
    }


def test_a_manifest_that_is_read_again_names_the_same_files() -> None:
    data = manifest(SMALL, LARGE).data()
    assert files_of(data, target()) == [SMALL, LARGE]
    assert files_of(data, target("oss://bucket/other/")) == []


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": [{}]}'])
def test_what_is_no_manifest_names_nothing(data: bytes) -> None:
    assert files_of(data, target()) == []


def test_two_files_that_want_to_be_one_object_are_found_also_through_nested_directories() -> None:
    inner = target("oss://bucket/results/deep/")
    assert twice_named([(target(), "deep/a"), (inner, "b")]) is None
    assert twice_named([(target(), "deep/a"), (inner, "a")]) == parse_object_url(
        "oss://bucket/results/deep/a"
    )


def test_a_store_may_call_bytes_by_their_md5_or_that_of_their_parts_and_by_nothing_else() -> None:
    assert [LARGE.is_called(etag) for etag in ("n", "p-2", "", "x")] == [True, True, False, False]
    assert not SMALL.is_called("")
