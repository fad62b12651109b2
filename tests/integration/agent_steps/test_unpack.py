"""The unpacking program against archives that nobody should trust."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass_proto.unpack.launch import Outcome, Verdict, unpack_archive
from windlass_proto.unpack.limits import Limits

DONE = Outcome(verdict=Verdict.UNPACKED)
ADD = Callable[[tarfile.TarFile], None]


def run_unpacker(
    archive: Path, directory: Path, *, limit_bytes: int = 1 << 20, limit_entries: int = 100, ratio: int = 250
) -> Outcome:
    directory.mkdir(exist_ok=True)
    limits = Limits(unpacked_bytes=limit_bytes, entries=limit_entries, ratio=ratio)
    with archive.open("rb") as file:
        return unpack_archive(file, directory, limits, is_cancelled=lambda: False)


def refused(said: str) -> Outcome:
    return Outcome(verdict=Verdict.REFUSED, said=said)


def a_member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> ADD:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, mode
        content = b"content" if kind == tarfile.REGTYPE else b""
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    return add


def a_tar(path: Path, *members: ADD) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for add in members:
            add(tar)
    return path


def a_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return path


def everything_below(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


def test_a_good_tar_is_unpacked_with_its_execute_bits(tmp_path: Path) -> None:
    archive = a_tar(
        tmp_path / "a.tar.gz",
        a_member("bin", kind=tarfile.DIRTYPE, mode=0o755),
        a_member("bin/run.sh", mode=0o755),
        a_member("./deep/data.txt"),
        a_member("latest", kind=tarfile.SYMTYPE, link="deep/data.txt"),
        a_member("deep/up", kind=tarfile.SYMTYPE, link="../bin/run.sh"),
        a_member("again", kind=tarfile.LNKTYPE, link="deep/data.txt"),
    )
    out = tmp_path / "out"
    assert run_unpacker(archive, out) == DONE
    assert everything_below(out) == {
        "bin",
        "bin/run.sh",
        "deep",
        "deep/data.txt",
        "deep/up",
        "latest",
        "again",
    }
    assert (out / "bin/run.sh").stat().st_mode & 0o777 == 0o755
    assert (out / "deep/data.txt").stat().st_mode & 0o777 == 0o644
    assert {(out / name).read_bytes() for name in ("latest", "deep/up", "again")} == {b"content"}


def test_a_good_zip_is_unpacked_with_its_execute_bits(tmp_path: Path) -> None:
    archive = a_zip(
        tmp_path / "a.zip", ("bin/run.sh", b"#!/bin/sh", 0o100755), ("deep/", b"", 0o40755), ("x", b"y", 0)
    )
    out = tmp_path / "out"
    assert run_unpacker(archive, out) == DONE
    assert everything_below(out) == {"bin", "bin/run.sh", "deep", "x"}
    assert (out / "bin/run.sh").stat().st_mode & 0o111


HOSTILE = {
    "climbs": ([a_member("../evil")], "'../evil'"),
    "climbs inside": ([a_member("a/../../evil")], "'a/../../evil'"),
    "absolute": ([a_member("/tmp/windlass-evil")], "absolute"),
    "link out": ([a_member("l", kind=tarfile.SYMTYPE, link="../../etc")], "'l'"),
    "absolute link": ([a_member("l", kind=tarfile.SYMTYPE, link="/etc/passwd")], "absolute path"),
    "behind a link": (
        [a_member("l", kind=tarfile.SYMTYPE, link="."), a_member("l/evil")],
        "lies behind the link",
    ),
    "link that climbs through a link": (
        [
            a_member("a/b/d", kind=tarfile.SYMTYPE, link="../.."),
            a_member("a/b/l", kind=tarfile.SYMTYPE, link="d/.."),
        ],
        "'a/b/l'",
    ),
    "hard link out": ([a_member("h", kind=tarfile.LNKTYPE, link="../../etc/passwd")], "'../../etc/passwd'"),
    "hard link to a link": (
        [a_member("l", kind=tarfile.SYMTYPE, link="x"), a_member("h", kind=tarfile.LNKTYPE, link="l")],
        "'h'",
    ),
    "character device": ([a_member("dev", kind=tarfile.CHRTYPE)], "'dev': is a device"),
    "block device": ([a_member("dev", kind=tarfile.BLKTYPE)], "'dev': is a device"),
    "fifo": ([a_member("pipe", kind=tarfile.FIFOTYPE)], "'pipe': is a device, a fifo"),
    "set-uid": ([a_member("su", mode=0o4755)], "'su': is set-uid"),
    "set-gid": ([a_member("sg", mode=0o2755)], "'sg': is set-uid or set-gid"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tar_is_refused_by_its_members_name_and_nothing_lands_outside(
    case: str, tmp_path: Path
) -> None:
    members, says = HOSTILE[case]
    archive = a_tar(tmp_path / "a.tar.gz", a_member("first"), *members)
    out = tmp_path / "in" / "out"
    out.parent.mkdir()
    outcome = run_unpacker(archive, out)
    assert outcome.verdict is Verdict.REFUSED
    assert says in outcome.said
    assert everything_below(tmp_path / "in") <= {"out", "out/first", "out/l", "out/a", "out/a/b", "out/a/b/d"}
    assert not Path("/tmp/windlass-evil").exists()


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (("../evil", b"x", 0), "'../evil'"),
        (("/tmp/windlass-evil", b"x", 0), "absolute"),
        (("l", b"../../etc/passwd", 0o120777), "leads out"),
        (("pipe", b"", 0o010644), "is a device, a fifo"),
        (("su", b"x", 0o104755), "set-uid"),
    ],
)
def test_a_hostile_zip_is_refused(member: tuple[str, bytes, int], says: str, tmp_path: Path) -> None:
    outcome = run_unpacker(a_zip(tmp_path / "a.zip", member), tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert says in outcome.said


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = a_zip(tmp_path / "a.zip", ("secret", b"x", 0))
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    archive.write_bytes(data)
    outcome = run_unpacker(archive, tmp_path / "out")
    assert outcome == refused("'secret': is encrypted")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The trick of the zip that becomes petabytes without being nested."""
    archive = a_zip(tmp_path / "a.zip", ("aaaa", b"x" * 1000, 0), ("bbbb", b"y" * 1000, 0))
    data = bytearray(archive.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = (0).to_bytes(4, "little")
    archive.write_bytes(data)
    outcome = run_unpacker(archive, tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "shares its bytes with another member" in outcome.said


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_output_is_counted_as_it_is_written(kind: str, tmp_path: Path) -> None:
    content = b"0" * (4 << 20)
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        a_zip(archive, ("zeros", content, 0))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    out = tmp_path / "out"
    outcome = run_unpacker(archive, out, limit_bytes=1 << 20)
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.said.endswith("the archive unpacks to more than 1048576 bytes")
    assert sum(file.stat().st_size for file in out.rglob("*")) <= 1 << 20


def test_entries_are_counted(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", *(a_member(f"f{n}") for n in range(11)))
    outcome = run_unpacker(archive, tmp_path / "out", limit_entries=10)
    assert outcome == refused("'f10': the archive has more than 10 entries")


def test_a_file_and_a_directory_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", a_member("a/b"), a_member("a"))
    outcome = run_unpacker(archive, tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "a file and a directory of one name" in outcome.said


@pytest.mark.parametrize("kind", ["cut off", "flipped", "empty", "text", "zip in name only"])
def test_a_damaged_archive_is_refused(kind: str, tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", a_member("a"), a_member("b"))
    good = archive.read_bytes()
    match kind:
        case "cut off":
            archive.write_bytes(good[: len(good) // 2])
        case "flipped":
            archive.write_bytes(good[:-8] + b"\x00\x00\x00\x00" + good[-4:])
        case "empty":
            archive.write_bytes(b"")
        case "text":
            archive.write_text("<html>not found</html>")
        case "zip in name only":
            archive.write_bytes(b"PK\x03\x04 and then nothing")
    outcome = run_unpacker(archive, tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "archive" in outcome.said
