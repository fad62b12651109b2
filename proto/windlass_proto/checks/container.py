"""Checks of the container that a task asks for."""

import re

from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.mappings import check_object_directory, check_object_url
from windlass_proto.checks.words import Findings, check_name, check_text, show
from windlass_proto.model.specs import TaskSpec

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_IMAGE_BYTES = 512


def check_container(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    """Where its image comes from, and what cannot be given to a container."""
    container = task.container
    if container is None:
        return
    if not container.image and not container.archive:
        findings.add(f"{path}.image", "must be given, such as debian:12, unless 'archive' is")
    if container.image:
        _check_image(findings, f"{path}.image", container.image)
    if container.registry:
        check_object_directory(findings, f"{path}.registry", container.registry, limits=limits)
        if container.archive:
            findings.add(
                f"{path}.archive", "must not be given together with 'registry'; the image is in one of them"
            )
        if not container.image:
            findings.add(f"{path}.image", "must say which image of the registry is meant")
    if container.archive and check_object_url(findings, f"{path}.archive", container.archive, limits=limits):
        _check_archive(findings, f"{path}.archive", container.archive)
    if container.login:
        check_name(findings, f"{path}.login", container.login, longest=limits.name_length)
        if container.registry or container.archive:
            findings.add(
                f"{path}.login",
                "must be given for a registry on the network only; object storage is reached with 'storage'",
            )
    _check_env(findings, path.rpartition(".")[0], task)


def _check_image(findings: Findings, path: str, image: str) -> None:
    if check_text(findings, path, image, longest_bytes=_IMAGE_BYTES) and not _IMAGE.fullmatch(image):
        findings.add(
            path,
            "must be like debian:12, registry.example.com/team/tool:1.4 or tool@sha256:0123..., in lower case"
            f" (is {show(image)})",
        )


def _check_archive(findings: Findings, path: str, url: str) -> None:
    if url.endswith("/"):
        findings.add(path, f"must name the tar of an image, not a directory (is {show(url)})")


def _check_env(findings: Findings, path: str, task: TaskSpec) -> None:
    for name, value in task.env.items():
        if "\n" in value or "\r" in value:
            findings.add(
                f"{path}.env.{name}", "must be one line in a container; put more into a file of the package"
            )
