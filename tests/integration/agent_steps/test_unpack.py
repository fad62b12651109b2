"""The unpacking program against archives that nobody should trust."""

import ctypes
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import windlass_proto.unpack
from tests.support.archives import (
    COMPRESSIONS,
    HOSTILE_ZIPS,
    a_member,
    a_tar,
    a_zip,
    bomb_behind_the_end,
    crowded_zip,
    encrypted_zip,
    hostile_tars,
    overlapping_zip,
    tar_bytes,
    xz_of_huge_window,
    zst_of_huge_window,
)
from windlass_proto.unpack.launch import Outcome, Verdict, unpack_archive
from windlass_proto.unpack.limits import Limits

PROTO = Path(windlass_proto.__file__).parents[1]
DONE = Outcome(verdict=Verdict.UNPACKED)


def run_unpacker(
    archive: Path, directory: Path, *, limit_bytes: int = 1 << 20, limit_entries: int = 100, ratio: int = 250
) -> Outcome:
    directory.mkdir(exist_ok=True)
    limits = Limits(unpacked_bytes=limit_bytes, entries=limit_entries, ratio=ratio)
    with archive.open("rb") as file:
        return unpack_archive(file, directory, limits, is_cancelled=lambda: False)


def refused(said: str) -> Outcome:
    return Outcome(verdict=Verdict.REFUSED, said=said)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def has_landlock() -> bool:
    version: int = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    return version >= 2


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


HOSTILE = hostile_tars("/tmp/windlass-evil")


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


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused(case: str, tmp_path: Path) -> None:
    member, says = HOSTILE_ZIPS[case]
    outcome = run_unpacker(a_zip(tmp_path / "a.zip", member), tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert says in outcome.said


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = written(tmp_path / "a.zip", encrypted_zip())
    assert run_unpacker(archive, tmp_path / "out") == refused("'secret': is encrypted")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    outcome = run_unpacker(written(tmp_path / "a.zip", overlapping_zip()), tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "shares its bytes with another member" in outcome.said


@pytest.mark.parametrize("told", [101, 1])
def test_members_of_a_zip_are_counted_before_they_are_read_whatever_it_says(
    told: int, tmp_path: Path
) -> None:
    archive = written(tmp_path / "a.zip", crowded_zip(101, told=told))
    assert run_unpacker(archive, tmp_path / "out") == refused("the archive has more than 100 entries")


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_tar_may_be_compressed_in_any_of_these_ways_whatever_it_is_called(
    kind: str, tmp_path: Path
) -> None:
    content = COMPRESSIONS[kind](tar_bytes(a_member("a"), a_member("big", content=b"0123456789" * 50_000)))
    out = tmp_path / "out"
    assert run_unpacker(written(tmp_path / "a.zip", content), out) == DONE
    assert (out / "a").read_bytes() == b"content"
    assert (out / "big").read_bytes() == b"0123456789" * 50_000


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_pieces_that_were_compressed_one_by_one_are_one_archive(kind: str, tmp_path: Path) -> None:
    whole = tar_bytes(a_member("a"), a_member("b"))
    content = COMPRESSIONS[kind](whole[:1000]) + COMPRESSIONS[kind](whole[1000:])
    out = tmp_path / "out"
    assert run_unpacker(written(tmp_path / "a", content), out) == DONE
    assert everything_below(out) == {"a", "b"}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_an_archive_that_was_cut_off_is_refused(kind: str, tmp_path: Path) -> None:
    whole = COMPRESSIONS[kind](tar_bytes(a_member("a", content=os.urandom(200_000))))
    # Of a plain one the end is padding; of the others a checksum, behind all that tar wants to see.
    cut_off = whole[: len(whole) // 2] if kind == "tar" else whole[:-2]
    outcome = run_unpacker(written(tmp_path / "a", cut_off), tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "damaged" in outcome.said


@pytest.mark.parametrize("make", [xz_of_huge_window, zst_of_huge_window])
def test_a_window_that_is_too_large_is_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    outcome = run_unpacker(written(tmp_path / "a", make()), tmp_path / "out")
    assert outcome.verdict is Verdict.REFUSED
    assert "memory" in outcome.said


def test_how_much_larger_than_its_archive_the_content_may_be_counts_above_256_mib() -> None:
    limits = Limits(unpacked_bytes=8 << 30, entries=1, ratio=100)
    assert limits.bytes_from(1000) == 256 << 20
    assert limits.bytes_from(10 << 20) == 1000 << 20
    assert limits.bytes_from(10 << 30) == 8 << 30


def test_bytes_behind_the_end_of_a_tar_are_counted_too(tmp_path: Path) -> None:
    outcome = run_unpacker(written(tmp_path / "a", bomb_behind_the_end(8 << 20)), tmp_path / "out")
    assert outcome == refused("the archive unpacks to more than 1048576 bytes")


def test_what_is_unpacked_belongs_to_the_owner_of_its_directory(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: others own what they unpack anyway")
    archive = a_tar(tmp_path / "a.tar.gz", a_member("d/f"), a_member("d/l", kind=tarfile.SYMTYPE, link="f"))
    for owner in (0, 12345):
        out = tmp_path / f"of-{owner}"
        out.mkdir()
        (out / "d").mkdir()  # made for an output, say
        os.chown(out, owner, owner)
        os.chown(out / "d", owner, owner)
        assert run_unpacker(archive, out) == DONE
        found = {out, *out.rglob("*")}
        assert {(path.lstat().st_uid, path.lstat().st_gid) for path in found} == {(owner, owner)}


_UNPACK = """
import sys
from pathlib import Path
from windlass_proto.unpack.launch import unpack_archive
from windlass_proto.unpack.limits import Limits
limits = Limits(unpacked_bytes=1000, entries=10, ratio=1)
with open(sys.argv[1], "rb") as archive:
    print(unpack_archive(archive, Path(sys.argv[2]), limits, is_cancelled=lambda: False).verdict)
"""


def test_a_root_that_knows_nobody_else_unpacks_all_the_same(tmp_path: Path) -> None:
    """As in a container whose engine runs without root."""
    alone = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine makes no user namespaces")
    archive = a_tar(tmp_path / "a.tar.gz", a_member("d/f"))
    out = tmp_path / "out"
    out.mkdir()
    command = [*alone, sys.executable, "-c", _UNPACK, str(archive), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("unpacked\n", "")
    assert everything_below(out) == {"d", "d/f"}


def test_an_unpacker_whose_parent_died_before_it_began_unpacks_nothing(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", a_member("f"))
    out = tmp_path / "out"
    out.mkdir()
    program = Path(windlass_proto.unpack.__file__).parent
    limits = Limits(unpacked_bytes=1000, entries=10, ratio=1, parent=1)
    with archive.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "utf8", str(program), limits.to_json()],
            stdin=file,
            cwd=out,
            check=False,
            timeout=60,
        )
    assert (done.returncode, everything_below(out)) == (-signal.SIGKILL, set())


_TRIES = """
import os, socket, subprocess, sys
sys.path.append(sys.argv[1])
from windlass_proto.unpack.confinement import confine
from windlass_proto.unpack.limits import Limits
user = 65534 if os.geteuid() == 0 else None
confine(Limits(unpacked_bytes=1000, entries=1, ratio=1, user=user, group=user))

def tried(name, action):
    try:
        action()
    except (OSError, MemoryError) as problem:
        print(name, "refused")
    else:
        print(name, "allowed")

def write(size):
    with open("inside", "wb") as file:
        file.write(bytes(size))

tried("inside", lambda: write(10))
tried("large", lambda: write(2000))
tried("read", lambda: open("/etc/hostname").read())
tried("write", lambda: open("../outside", "w"))
tried("fifo", lambda: os.mkfifo("fifo"))
tried("connect", lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[2]))))
tried("start", lambda: os.fork() or os._exit(0))
tried("memory", lambda: bytearray(2 << 30))
"""


def test_the_unpacker_has_no_network_no_other_files_no_children_and_little_memory(tmp_path: Path) -> None:
    if not has_landlock():
        pytest.skip("this kernel has no Landlock")
    inside = tmp_path / "inside"
    inside.mkdir(mode=0o777)
    inside.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = [sys.executable, "-I", "-S", "-c", _TRIES, str(PROTO), str(port)]
        done = subprocess.run(code, cwd=inside, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    refused_ones = ("large", "read", "write", "fifo", "connect", "start", "memory")
    assert done.stdout.split("\n") == ["inside allowed", *(f"{name} refused" for name in refused_ones), ""]


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
