"""Checks of what is moved: object URLs, and the directories of the node that they are mapped to."""

from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.words import Findings, check_text, show
from windlass_proto.model.specs import TaskSpec
from windlass_proto.model.storage import parse_object_url

SYSTEM_DIRECTORIES = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "proc",
    "run",
    "sbin",
    "sys",
    "usr",
)
"""Nothing may be mapped here or below: what is mapped hides what was there."""


def check_mappings(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    """All inputs and outputs of a task, each alone and together."""
    for field, mappings in (("inputs", task.inputs), ("outputs", task.outputs)):
        if len(mappings) > limits.mappings:
            findings.add(f"{path}.{field}", f"must be at most {limits.mappings} (are {len(mappings)})")
    holders: dict[str, str] = {}
    for position, taken in enumerate(task.inputs):
        here = f"{path}.inputs[{position}]"
        check_object_url(findings, f"{here}.source", taken.source, limits=limits)
        place = _check_directory(findings, f"{here}.destination", taken.destination, limits=limits)
        _check_free(findings, f"{here}.destination", taken.destination, holder=holders.get(place))
        if place:
            holders.setdefault(place, taken.source)
    for position, given in enumerate(task.outputs):
        here = f"{path}.outputs[{position}]"
        place = _check_directory(findings, f"{here}.source", given.source, limits=limits)
        _check_free(findings, f"{here}.source", given.source, holder=holders.get(place))
        check_object_url(findings, f"{here}.destination", given.destination, limits=limits)


def check_object_url(findings: Findings, path: str, url: str, *, limits: SpecLimits) -> bool:
    """Whether it was found good."""
    if not check_text(findings, path, url, longest_bytes=limits.url_bytes):
        return False
    if not url.isprintable():
        findings.add(path, f"must hold printable characters only (is {show(url)})")
        return False
    try:
        parse_object_url(url)
    except ValueError as problem:
        findings.add(path, str(problem))
        return False
    return True


def _check_directory(findings: Findings, path: str, directory: str, *, limits: SpecLimits) -> str:
    """The directory in its plain form; "" when it was found bad."""
    before = len(findings.problems)
    parts = [part for part in directory.split("/") if part not in ("", ".")]
    is_absolute = directory.startswith("/")
    if not directory:
        findings.add(path, "must be given")
    elif not check_text(findings, path, directory, longest_bytes=limits.path_bytes):
        pass
    elif not directory.isprintable():
        findings.add(path, f"must hold printable characters only (is {show(directory)})")
    elif ".." in parts:
        findings.add(path, f"must not contain '..' (is {show(directory)})")
    elif not parts:
        whole = "the root of the node" if is_absolute else "the work directory itself"
        findings.add(path, f"must be a directory of its own, not {whole} (is {show(directory)})")
    elif is_absolute and parts[0] in SYSTEM_DIRECTORIES:
        findings.add(path, f"must not lie in /{parts[0]}, which belongs to the system (is {show(directory)})")
    if len(findings.problems) > before:
        return ""
    return ("/" if is_absolute else "") + "/".join(parts)


def _check_free(findings: Findings, path: str, directory: str, *, holder: str | None) -> None:
    if holder is not None:
        findings.add(
            path,
            f"must be a directory of its own; {show(directory)} is the place of the input {show(holder)}",
        )
