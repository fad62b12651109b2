"""Packing: the same files give the same archive, and only what belongs in it is in it."""

import os
import tarfile
from pathlib import Path

import pytest

from windlass.package import pack
from windlass_proto.errors import InvalidRequest, NotFound


def a_program(folder: Path) -> Path:
    (folder / "lib").mkdir(parents=True)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "lib" / "part.py").write_text("x = 1\n")
    (folder / "link").symlink_to("lib/part.py")
    return folder


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {entry.name: entry for entry in archive}


def test_the_same_files_give_the_same_bytes_whenever_and_wherever_they_were_written(tmp_path: Path) -> None:
    first = pack([a_program(tmp_path / "one")], tmp_path)
    second_folder = a_program(tmp_path / "two")
    for path in second_folder.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (second_folder / "lib" / "part.py").chmod(0o600)
    second = pack([second_folder], tmp_path)
    assert first.path != second.path
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_another_content_gives_another_digest(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    before = pack([folder], tmp_path)
    (folder / "lib" / "part.py").write_text("x = 2\n")
    assert pack([folder], tmp_path).sha256 != before.sha256


def test_a_folder_is_packed_by_its_content_without_owners_and_times(tmp_path: Path) -> None:
    found = members(pack([a_program(tmp_path / "one")], tmp_path).path)
    assert list(found) == ["lib", "lib/part.py", "link", "run.sh"]
    assert found["run.sh"].mode == 0o755
    assert found["lib/part.py"].mode == 0o644
    assert found["link"].linkname == "lib/part.py"
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname) for entry in found.values()} == {(0, 0, 0, "")}


def test_what_nobody_wants_in_a_package_is_left_out(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    for name in (".git/HEAD", "lib/__pycache__/x.pyc", "data/big.bin", "lib/note.tmp", "lib/data/keep"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".windlassignore").write_text("# big things\n/data/\n*.tmp\n")
    found = members(pack([folder], tmp_path).path)
    assert set(found) == {"lib", "lib/part.py", "lib/data", "lib/data/keep", "link", "run.sh"}


def test_what_is_left_out_is_named_by_the_rules_of_gitignore(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    for name in (
        "a.tmp",
        "keep.tmp",
        "lib/b.tmp",
        "docs/x/y/z.pdf",
        "docs/z.txt",
        "deep/.git/HEAD",
        "build",
        "out/build/x",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    lines = ["*.tmp", "!keep.tmp", "docs/**/*.pdf", "build/", "/lib/*.py", "!.git", "!.windlassignore"]
    (folder / ".windlassignore").write_text("\n".join(lines))
    found = members(pack([folder], tmp_path).path)
    files = {name for name, entry in found.items() if not entry.isdir()}
    assert files == {"build", "docs/z.txt", "keep.tmp", "link", "run.sh"}


def test_a_pattern_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    (folder / ".windlassignore").write_text("!\n")
    with pytest.raises(InvalidRequest, match=r"one/\.windlassignore"):
        pack([folder], tmp_path)


def test_files_are_packed_by_their_base_names(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    packed = pack([folder / "run.sh", folder / "lib" / "part.py"], tmp_path)
    assert list(members(packed.path)) == ["part.py", "run.sh"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    (folder / "part.py").write_text("other")
    with pytest.raises(InvalidRequest, match=r"same name 'part\.py'"):
        pack([folder / "part.py", folder / "lib" / "part.py"], tmp_path)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_an_archive_is_taken_as_it_is(suffix: str, tmp_path: Path) -> None:
    archive = tmp_path / f"ready{suffix}"
    archive.write_bytes(b"PK")
    packed = pack([archive], tmp_path)
    assert (packed.path, packed.suffix) == (archive, suffix)


def test_an_absolute_link_is_refused_as_nodes_would(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    (folder / "other").symlink_to(folder / "run.sh")
    with pytest.raises(InvalidRequest, match="other: the link is absolute"):
        pack([folder], tmp_path)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = a_program(tmp_path / "one")
    (folder / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequest, match="leads out of the folder"):
        pack([folder], tmp_path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        pack([tmp_path / "nowhere"], tmp_path)
