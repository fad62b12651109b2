"""What commands leave behind is removed, whatever it is, and nothing beyond it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from windlass_agent.spool.remove_tree import remove_tree
from windlass_agent.spool.stray_mounts import mounts_below

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 254:0 /data /state/slots/0/work/m rw - ext4 /dev/root rw
31 30 0:40 / /state/slots/0/work/m/with\\040blank rw - fuse.rclone oss:x rw
32 22 0:41 / /state-of-others/m rw - tmpfs none rw
33 22 0:42 / /state rw - tmpfs none rw
"""


def test_a_tree_deeper_than_python_recurses_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a-rather-long-name", dir_fd=here)
        below = os.open("a-rather-long-name", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert remove_tree(root) == 0
    assert not root.exists()


def test_links_are_removed_and_what_they_point_to_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    (root / "link").symlink_to(precious)
    (root / "below" / "link").symlink_to(precious)
    assert remove_tree(root) == 0
    assert os.listdir(precious) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root, to mount")
def test_what_a_command_has_mounted_is_taken_off_and_not_emptied(tmp_path: Path) -> None:
    precious, point = tmp_path / "precious", tmp_path / "tree" / "deep" / "point"
    precious.mkdir()
    (precious / "file").touch()
    point.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, point], check=True)
    try:
        assert remove_tree(tmp_path / "tree") == 0
    finally:
        subprocess.run(["umount", point], check=False, capture_output=True)
    assert os.listdir(precious) == ["file"]
    assert not (tmp_path / "tree").exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("chattr") is None, reason="not run: needs root and chattr"
)
def test_what_cannot_be_removed_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    (root / "below" / "file").touch()
    (root / "below" / "immutable").touch()
    done = subprocess.run(["chattr", "+i", root / "below" / "immutable"], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("not run: this file system knows no immutable files")
    try:
        assert remove_tree(root) == 1
        assert [path.name for path in root.rglob("*") if path.is_file()] == ["immutable"]
    finally:
        subprocess.run(["chattr", "-i", root / "below" / "immutable"], check=True)
    assert remove_tree(root) == 0


def test_a_directory_that_is_not_there_is_fine(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "nothing") == 0


def test_mounts_below_a_directory_are_found_innermost_first() -> None:
    assert mounts_below(MOUNTINFO, Path("/state")) == [
        "/state/slots/0/work/m/with blank",
        "/state/slots/0/work/m",
    ]
