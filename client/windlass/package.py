"""Local programs as packages: packed the same way every time, uploaded once.

The same files give the same archive, byte for byte (sorted names, no times, no owners), so its digest names
it in the store and a second submit of an unchanged folder uploads nothing.
"""

import fnmatch
import gzip
import hashlib
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from windlass.store import RemoteFiles
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import TaskName
from windlass_proto.model.storage import ObjectLocation

IGNORE_FILE = ".windlassignore"
_ALWAYS_IGNORED = (".git", "__pycache__")
_ARCHIVES = {".tar.gz": ".tar.gz", ".tgz": ".tar.gz", ".zip": ".zip"}
_READ_BYTES = 1024 * 1024
_COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An archive on this machine."""

    path: Path
    sha256: str
    suffix: str


def pack(sources: Sequence[Path], into: Path) -> Packed:
    """Packs files (by their base names) or one folder's content into a tar.gz in the folder `into`.

    A single file that is an archive already (.tar.gz, .tgz, .zip) is taken as it is.
    """
    if len(sources) == 1 and sources[0].is_file():
        for ending, suffix in _ARCHIVES.items():
            if sources[0].name.endswith(ending):
                return Packed(path=sources[0], sha256=_digest(sources[0]), suffix=suffix)
    with tempfile.NamedTemporaryFile(dir=into, suffix=".tar.gz", delete=False) as file:
        _write_archive(_members(sources), file)
    path = Path(file.name)
    return Packed(path=path, sha256=_digest(path), suffix=".tar.gz")


def upload_packages(
    packages: Mapping[TaskName, tuple[Path, ...]], *, store: RemoteFiles, bucket: str
) -> dict[TaskName, str]:
    """The object URL of each task's package; the same sources are packed once, known ones not uploaded."""
    urls: dict[tuple[Path, ...], str] = {}
    with tempfile.TemporaryDirectory(prefix="windlass-pack-") as folder:
        for sources in dict.fromkeys(packages.values()):
            packed = pack(sources, Path(folder))
            target = ObjectLocation(
                scheme="oss", bucket=bucket, key=f"packages/{packed.sha256}{packed.suffix}"
            )
            if store.size_of(target) != packed.path.stat().st_size:
                store.upload(packed.path, target)
            urls[sources] = str(target)
    return {task: urls[sources] for task, sources in packages.items()}


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


def _below(root: Path, prefix: str, ignored: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for path in (root / prefix).iterdir():
        name = f"{prefix}{path.name}"
        is_folder = path.is_dir() and not path.is_symlink()
        if _is_ignored(name, ignored, is_folder=is_folder):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise InvalidRequest(
                f"cannot pack {path}: the link leads out of the folder; "
                f"replace it by the file, or name it in {IGNORE_FILE}"
            )
        yield name, path
        if is_folder:
            yield from _below(root, f"{name}/", ignored)


def _ignored_in(folder: Path) -> tuple[str, ...]:
    try:
        lines = (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return _ALWAYS_IGNORED
    named = (line.strip() for line in lines)
    return (*_ALWAYS_IGNORED, IGNORE_FILE, *(line for line in named if line and not line.startswith("#")))


def _is_ignored(name: str, patterns: Sequence[str], *, is_folder: bool) -> bool:
    """A pattern without an inner slash fits at any depth; one that ends in a slash fits folders only."""
    for pattern in patterns:
        if pattern.endswith("/") and not is_folder:
            continue
        plain = pattern.rstrip("/")
        subject = name if "/" in plain else name.rsplit("/", 1)[-1]
        if fnmatch.fnmatchcase(subject, plain.lstrip("/")):
            return True
    return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
