"""Checks of what is moved: object URLs, and the directories of the node that they are mapped to."""

import codecs
import re
from collections.abc import Callable, Mapping

from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.words import Findings, check_name, check_text, nearest, show
from windlass_proto.model.file_names import unfit_path
from windlass_proto.model.specs import InputMapping, OutputMapping, TaskSpec
from windlass_proto.model.storage import (
    LOCAL_SCHEME,
    NETWORK_SCHEMES,
    LocalLocation,
    Location,
    NetworkLocation,
    ObjectLocation,
    parse_location,
    parse_object_url,
)

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

OWN_DIRECTORIES = ("/var/lib/windlass", "/var/lib/windlass-agent", "/var/lib/windlass-coordinator")
"""Where our programs keep their state unless told otherwise; an agent knows its real one and refuses that."""

MOUNT_OPTIONS = frozenset(
    {
        *("ac", "noac", "acregmin", "acregmax", "acdirmin", "acdirmax", "actimeo", "cto", "nocto"),
        *("lock", "nolock", "local_lock", "lookupcache", "sharecache", "nosharecache", "nconnect"),
        *("hard", "soft", "softerr", "timeo", "retrans", "retry", "rsize", "wsize"),
        *("vers", "nfsvers", "minorversion", "proto", "port", "mountproto", "mountport", "mountvers"),
        *("resvport", "noresvport", "sec", "noatime", "nodiratime", "relatime", "noexec"),
    }
)
"""What a task may say to the NFS client. Everything else is the node's: who may write, devices, set-uid."""

_OPTION = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(=[A-Za-z0-9.:_]+)?")


def check_mappings(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    """All inputs and outputs of a task, each alone and together."""
    for field, mappings in (("inputs", task.inputs), ("outputs", task.outputs)):
        if len(mappings) > limits.mappings:
            findings.add(f"{path}.{field}", f"must be at most {limits.mappings} (are {len(mappings)})")
    if task.storage:
        check_name(findings, f"{path}.storage", task.storage, longest=limits.name_length)
    holders: dict[str, str] = {}
    places: dict[str, str] = {}
    for position, taken in enumerate(task.inputs):
        here = f"{path}.inputs[{position}]"
        _check_input(findings, here, taken, limits=limits)
        place = _check_directory(findings, f"{here}.destination", taken.destination, limits=limits)
        _check_free(findings, f"{here}.destination", taken.destination, holder=holders.get(place))
        if place:
            holders.setdefault(place, taken.source)
            places[f"{here}.destination"] = place
    for position, given in enumerate(task.outputs):
        here = f"{path}.outputs[{position}]"
        place = _check_directory(findings, f"{here}.source", given.source, limits=limits)
        _check_free(findings, f"{here}.source", given.source, holder=holders.get(place))
        _check_output(findings, here, given, limits=limits)
        if place:
            places[f"{here}.source"] = place
    _check_not_nested(findings, places)


def check_input_locale(findings: Findings, path: str, task: TaskSpec) -> None:
    """A character set for file names; only the names of objects are ours to give."""
    if not task.input_locale:
        return
    if not _keeps_ascii(task.input_locale):
        findings.add(
            path,
            "must be a character set that Python knows and that keeps ASCII as it is, such as GBK, BIG5 or"
            f" Shift_JIS (is {show(task.input_locale)})",
        )
        return
    for position, taken in enumerate(task.inputs):
        if taken.source.partition("://")[0] in (*NETWORK_SCHEMES, LOCAL_SCHEME):
            findings.add(
                path,
                f"must not be given with inputs[{position}], whose names are as its server has them"
                f" ({show(taken.source)}); only names of oss://, cos:// and s3:// can be had in another one",
            )


def _keeps_ascii(name: str) -> bool:
    """Whether it is a character set, and its names can be paths."""
    ascii_text = "".join(map(chr, range(0x20, 0x7F)))
    try:
        return codecs.encode(ascii_text, name) == ascii_text.encode() and isinstance("".encode(name), bytes)
    except (LookupError, ValueError, TypeError):
        return False


def _check_input(findings: Findings, path: str, taken: InputMapping, *, limits: SpecLimits) -> None:
    location = _check_location(findings, f"{path}.source", taken.source, limits=limits)
    if location is None:
        return
    _check_storage(findings, f"{path}.storage", taken.storage, location, limits=limits)
    if isinstance(location, NetworkLocation):
        _check_options(findings, f"{path}.options", taken.options, limits=limits)
        return
    for name, value in (("writable", taken.writable), ("options", taken.options)):
        if value:
            scheme = taken.source.partition(":")[0]
            findings.add(
                f"{path}.{name}", f"must not be given for {scheme}://, only for nas://, cfs:// and nfs://"
            )


def _check_output(findings: Findings, path: str, given: OutputMapping, *, limits: SpecLimits) -> None:
    place = f"{path}.destination"
    location = _check_location(findings, place, given.destination, limits=limits, parse=_parse_target)
    if location is not None:
        _check_storage(findings, f"{path}.storage", given.storage, location, limits=limits)


def _parse_target(url: str) -> Location:
    """Where outputs can go: what is a file system anyway is written by the command itself."""
    if url.partition("://")[0] in NETWORK_SCHEMES:
        raise ValueError(
            "must be an object URL such as oss://bucket/path/; what lies on a network file system is mapped"
            f" as a writable input (is {url!r})"
        )
    return parse_object_url(url)


def _check_storage(
    findings: Findings, path: str, storage: str, location: Location, *, limits: SpecLimits
) -> None:
    if storage and not isinstance(location, ObjectLocation):
        findings.add(
            path, f"must be given for object URLs only, not for {str(location).partition(':')[0]}://"
        )
    elif storage:
        check_name(findings, path, storage, longest=limits.name_length)


def _check_location(
    findings: Findings,
    path: str,
    url: str,
    *,
    limits: SpecLimits,
    parse: Callable[[str], Location] = parse_location,
) -> Location | None:
    """A directory that can be mapped; None when it was found bad."""
    if not _check_url_text(findings, path, url, limits=limits):
        return None
    try:
        location = parse(url)
    except ValueError as problem:
        findings.add(path, str(problem))
        return None
    relative = location.key if isinstance(location, ObjectLocation) else location.path.removeprefix("/")
    unfit = unfit_path(relative)
    if unfit is not None:
        findings.add(path, f"{unfit} (is {show(url)})")
        return None
    if isinstance(location, LocalLocation) and not limits.local_files:
        findings.add(
            path,
            "must not be file://, which this coordinator does not allow (its setting limits.local_files);"
            " use oss://, cos:// or s3://",
        )
        return None
    return location if _ends_as_directory(findings, path, location) else None


def _ends_as_directory(findings: Findings, path: str, location: Location) -> bool:
    """As its service had it, a directory of cos:// ends in a slash; the other schemes are not so strict."""
    if isinstance(location, ObjectLocation) and location.scheme == "cos" and not location.is_directory:
        findings.add(path, f"must end in '/', like {show(f'{location}/')}: directories of cos:// do")
        return False
    return True


def _check_options(findings: Findings, path: str, options: str, *, limits: SpecLimits) -> None:
    """They become part of one argument of `mount`: no character that could begin another."""
    if not options or not check_text(findings, path, options, longest_bytes=limits.url_bytes):
        return
    for option in options.split(","):
        found = _OPTION.fullmatch(option)
        if found is None:
            findings.add(path, f"must be like vers=3,nolock,noresvport (holds {show(option)})")
        elif found["name"] not in MOUNT_OPTIONS:
            hint = nearest(found["name"], MOUNT_OPTIONS)
            findings.add(
                path,
                f"must not hold {show(found['name'])}, which is no option for tasks"
                + (f"; did you mean {hint}?" if hint else ""),
            )


def check_object_directory(findings: Findings, path: str, url: str, *, limits: SpecLimits) -> None:
    """Of what gets files whose names we choose."""
    if check_object_url(findings, path, url, limits=limits):
        _ends_as_directory(findings, path, parse_object_url(url))


def check_object_url(findings: Findings, path: str, url: str, *, limits: SpecLimits) -> bool:
    """Whether it was found good."""
    if not _check_url_text(findings, path, url, limits=limits):
        return False
    try:
        parse_object_url(url)
    except ValueError as problem:
        findings.add(path, str(problem))
        return False
    return True


def _check_url_text(findings: Findings, path: str, url: str, *, limits: SpecLimits) -> bool:
    if not check_text(findings, path, url, longest_bytes=limits.url_bytes):
        return False
    if not url.isprintable():
        findings.add(path, f"must hold printable characters only (is {show(url)})")
        return False
    return True


def _check_directory(findings: Findings, path: str, directory: str, *, limits: SpecLimits) -> str:
    """The directory in its plain form; "" when it was found bad."""
    before = len(findings.problems)
    is_absolute = directory.startswith("/")
    parts = _plain(directory).strip("/").split("/") if _plain(directory).strip("/") else []
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
    elif is_absolute and _is_ours(_plain(directory)):
        findings.add(path, f"must not lie where Windlass keeps its own state (is {show(directory)})")
    else:
        unfit = unfit_path("/".join(parts))
        if unfit is not None:
            findings.add(path, f"{unfit} (is {show(directory)})")
    return "" if len(findings.problems) > before else _plain(directory)


def _plain(directory: str) -> str:
    parts = [part for part in directory.split("/") if part not in ("", ".")]
    return ("/" if directory.startswith("/") else "") + "/".join(parts)


def _is_ours(place: str) -> bool:
    return any(f"{place}/".startswith(f"{own}/") or own.startswith(f"{place}/") for own in OWN_DIRECTORIES)


def _check_free(findings: Findings, path: str, directory: str, *, holder: str | None) -> None:
    if holder is not None:
        findings.add(
            path,
            f"must be a directory of its own; {show(directory)} is the place of the input {show(holder)}",
        )


def _check_not_nested(findings: Findings, places: Mapping[str, str]) -> None:
    """`places`: what each field maps. A directory inside another would be hidden by it, or moved twice."""
    fields = {place: field for field, place in reversed(tuple(places.items()))}
    for field, place in places.items():
        parts = place.split("/")
        outer = next((up for n in range(1, len(parts)) if (up := "/".join(parts[:n])) in fields), None)
        if outer is not None:
            findings.add(field, f"must not lie in {show(outer)}, which is mapped by {fields[outer]}")
