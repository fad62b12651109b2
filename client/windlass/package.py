"""Local programs as packages: packed the same way every time, uploaded once.

The same files give the same archive, byte for byte (sorted names, no times, no owners), so its digest names
it in the store and a second submit of an unchanged folder uploads nothing.
"""

import gzip
import hashlib
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from windlass.store import Progress, RemoteFiles
from windlass_proto.checks.task import ARCHIVE_SUFFIXES
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import TaskName
from windlass_proto.model.storage import ObjectLocation

IGNORE_FILE = ".windlassignore"
_ALWAYS_IGNORED = (".git", "__pycache__")
_READ_BYTES = 1024 * 1024
_COMPRESSION_LEVEL = 6


Showing = Callable[[str, int], AbstractContextManager[Progress | None]]
"""Shows how far a file of this name and size is while it is uploaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An archive on this machine."""

    path: Path
    sha256: str
    suffix: str


def pack(sources: Sequence[Path], into: Path) -> Packed:
    """Packs files (by their base names) or one folder's content into a tar.gz in the folder `into`.

    A single file that is an archive already (ARCHIVE_SUFFIXES) is taken as it is.
    """
    if len(sources) == 1 and sources[0].is_file():
        for suffix in ARCHIVE_SUFFIXES:
            if sources[0].name.endswith(suffix):
                return Packed(path=sources[0], sha256=_digest(sources[0]), suffix=suffix)
    with tempfile.NamedTemporaryFile(dir=into, suffix=".tar.gz", delete=False) as file:
        _write_archive(_members(sources), file)
    path = Path(file.name)
    return Packed(path=path, sha256=_digest(path), suffix=".tar.gz")


def upload_packages(
    packages: Mapping[TaskName, tuple[Path, ...]],
    *,
    store: RemoteFiles,
    bucket: str,
    showing: Showing = lambda _name, _size_bytes: nullcontext(),
) -> dict[TaskName, str]:
    """The object URL of each task's package; the same sources are packed once, known ones not uploaded."""
    urls: dict[tuple[Path, ...], str] = {}
    with tempfile.TemporaryDirectory(prefix="windlass-pack-") as folder:
        for sources in dict.fromkeys(packages.values()):
            packed = pack(sources, Path(folder))
            target = ObjectLocation(
                scheme="oss", bucket=bucket, key=f"packages/{packed.sha256}{packed.suffix}"
            )
            size_bytes = packed.path.stat().st_size
            if store.size_of(target) != size_bytes:
                with showing(_name_of(sources), size_bytes) as progress:
                    store.upload(packed.path, target, progress=progress)
            urls[sources] = str(target)
    return {task: urls[sources] for task, sources in packages.items()}


def _name_of(sources: Sequence[Path]) -> str:
    first = sources[0].resolve().name
    return first if len(sources) == 1 else f"{first} and {len(sources) - 1} more"


def _write_archive(members: Sequence[tuple[str, Path]], file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(
            filename="", mode="wb", fileobj=file, mtime=0, compresslevel=_COMPRESSION_LEVEL
        ) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in members:
            _add(archive, name, path)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    if stat.S_ISLNK(status.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = str(path.readlink())
        if entry.linkname.startswith("/"):
            raise InvalidRequest(f"cannot pack {path}: the link is absolute; make it a relative one")
        archive.addfile(entry)
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        raise InvalidRequest(f"cannot pack {path}: it is neither a file, a folder nor a link")


def _members(sources: Sequence[Path]) -> list[tuple[str, Path]]:
    for source in sources:
        if not source.exists():
            raise NotFound(f"cannot pack {source}: there is no such file or folder")
    if len(sources) == 1 and sources[0].is_dir():
        return sorted(_below(sources[0], "", _ignored_in(sources[0])))
    named = {source.name: source for source in sources}
    for source in sources:
        if source.is_dir():
            raise InvalidRequest(f"cannot pack {source}: give one folder, or files only")
        if named[source.name] != source:
            raise InvalidRequest(f"cannot pack {source}: another file has the same name {source.name!r}")
    return sorted((name, path.resolve()) for name, path in named.items())


def _below(root: Path, prefix: str, ignored: GitIgnoreSpec) -> Iterator[tuple[str, Path]]:
    for path in (root / prefix).iterdir():
        name = f"{prefix}{path.name}"
        is_folder = path.is_dir() and not path.is_symlink()
        if ignored.match_file(f"{name}/" if is_folder else name):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise InvalidRequest(
                f"cannot pack {path}: the link leads out of the folder; "
                f"replace it by the file, or name it in {IGNORE_FILE}"
            )
        yield name, path
        if is_folder:
            yield from _below(root, f"{name}/", ignored)


def _ignored_in(folder: Path) -> GitIgnoreSpec:
    try:
        lines = (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    try:
        return GitIgnoreSpec.from_lines([*lines, *_ALWAYS_IGNORED, f"/{IGNORE_FILE}"])
    except ValueError as error:
        raise InvalidRequest(f"{folder / IGNORE_FILE}: {error}") from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
