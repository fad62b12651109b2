"""Which containers a task may ask for, and how what it may not is told."""

from dataclasses import replace

import pytest

from windlass_proto.checks import check_job
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, Container, JobSpec, TaskSpec

_TASK = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)))
_DIGEST = "sha256:" + "0" * 64


def problems(task: TaskSpec) -> list[str]:
    return [str(problem) for problem in check_job(JobSpec(name="j", tasks=(task,)))]


def said(container: Container) -> list[str]:
    """What is wrong, without the way there."""
    return [
        problem.removeprefix("tasks.t.container.")
        for problem in problems(replace(_TASK, container=container))
    ]


@pytest.mark.parametrize(
    "container",
    [
        *(Container(image=image) for image in ("debian:12", "tool", "team/tool:1.4_rc", "a.b-c__d/e")),
        Container(image="registry.example.com:5000/team/tool:1", login="ours"),
        Container(image=f"localhost/tool:1@{_DIGEST}"),
        Container(image="localhost:5000/tool", registry="oss://bucket/dockers/"),
        Container(archive="oss://bucket/tool.tar"),
        Container(archive="oss://bucket/tool.tar.gz", image="tool:1"),
    ],
)
def test_images_come_from_a_registry_an_archive_or_a_registry_in_object_storage(container: Container) -> None:
    assert said(container) == []


@pytest.mark.parametrize(
    "image", ["Debian", "-x", "a b", "a:b:c", "tool:", "/tool", "--privileged", "tool@sha256:12"]
)
def test_an_image_that_cannot_be_one_is_refused(image: str) -> None:
    (problem,) = said(Container(image=image))
    assert problem.startswith("image: must be like debian:12")
    assert repr(image) in problem


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        (Container(), "image: must be given, such as debian:12, unless 'archive' is"),
        (
            Container(registry="oss://b/r/", archive="oss://b/a.tar", image="t"),
            "archive: must not be given together with 'registry'",
        ),
        (
            Container(archive="oss://b/a/"),
            "archive: must name the tar of an image, not a directory (is 'oss://b/a/')",
        ),
        (Container(archive="http://b/a"), "archive: must be an object URL"),
        (Container(image="t", registry="nas://h:/x/"), "registry: must be an object URL"),
        (
            Container(archive="oss://b/a.tar", login="l"),
            "login: must be given for a registry on the network only",
        ),
        (Container(image="t", login="no name"), "login: must begin with a letter or digit"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_field(container: Container, problem: str) -> None:
    assert [found[: len(problem)] for found in said(container)] == [problem]


def test_a_registry_needs_the_name_of_an_image() -> None:
    assert "image: must say which image of the registry is meant" in said(Container(registry="oss://b/r/"))


def test_variables_of_several_lines_are_refused_in_a_container_only() -> None:
    task = replace(_TASK, env={"KEY": "one\ntwo"})
    assert problems(task) == []
    (problem,) = problems(replace(task, container=Container(image="debian:12")))
    assert problem.startswith("tasks.t.env.KEY: must be one line in a container")
