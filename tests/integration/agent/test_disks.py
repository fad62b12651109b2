"""Data disks on loop devices: blank ones are formatted, nothing else ever is."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.node.data_disks import DataDisks
from windlass_agent.node.disks import DataDisk, DataDiskRefused, FileSystem, prepare_disk, what_is_wrong
from windlass_agent.spool.disk_space import disk_space
from windlass_proto.errors import Unavailable

_SIZE = 32 << 20
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def _lacking() -> str:
    if os.geteuid() != 0:
        return "loop devices need root"
    missing = [name for name in ("losetup", "mkfs.ext4", "blkid") if not shutil.which(name, path=_PATH)]
    return f"not installed: {', '.join(missing)}" if missing else ""


pytestmark = pytest.mark.skipif(bool(_lacking()), reason=f"not run: {_lacking()}")


def run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": _PATH})
    return done.stdout.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A disk that is a file."""

    image: Path
    device: str
    mount_point: Path

    def disk(self, file_system: FileSystem = FileSystem.EXT4) -> DataDisk:
        return DataDisk(device=self.device, mount_point=str(self.mount_point), file_system=file_system)

    def digest(self) -> str:
        os.sync()
        return hashlib.sha256(self.image.read_bytes()).hexdigest()

    def write(self, offset: int, data: bytes) -> None:
        with open(self.device, "r+b") as file:
            file.seek(offset)
            file.write(data)
            os.fsync(file.fileno())

    def is_mounted(self) -> bool:
        return os.path.ismount(self.mount_point)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    try:
        device = run("losetup", "--find", "--show", str(image))
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"not run: no loop device: {problem.stderr}")
    made = Loop(image=image, device=device, mount_point=tmp_path / "data")
    try:
        yield made
    finally:
        while made.is_mounted():
            run("umount", str(made.mount_point))
        run("losetup", "--detach", device)


def assert_refused(loop: Loop, why: str, disk: DataDisk | None = None) -> None:
    """And every byte is as it was."""
    before = loop.digest()
    with pytest.raises(DataDiskRefused, match=why):
        prepare_disk(disk or loop.disk())
    assert loop.digest() == before


def test_a_blank_disk_is_formatted_and_mounted_once_and_what_is_on_it_stays(loop: Loop) -> None:
    assert prepare_disk(loop.disk()) == "formatted as ext4, mounted"
    (loop.mount_point / "kept").write_text("for ever")
    assert prepare_disk(loop.disk()) == ""
    assert what_is_wrong(loop.disk()) == ""
    run("umount", str(loop.mount_point))
    assert "is not mounted" in what_is_wrong(loop.disk())
    assert prepare_disk(loop.disk()) == "mounted"
    assert (loop.mount_point / "kept").read_text() == "for ever"
    options = run("findmnt", "-no", "OPTIONS", str(loop.mount_point)).split(",")
    assert {"nosuid", "nodev"} <= set(options)


@pytest.mark.parametrize("offset", [0, 512, (1 << 20) - 1, _SIZE - 1, _SIZE // 2, 7 << 20])
def test_a_disk_with_a_single_byte_on_it_is_never_formatted(loop: Loop, offset: int) -> None:
    loop.write(offset, b"x")
    assert_refused(loop, "not blank|not touched")
    assert not loop.is_mounted()


@pytest.mark.parametrize("kind", ["ext2", "swap", "dos"])
def test_what_something_else_is_on_is_never_formatted(loop: Loop, kind: str) -> None:
    match kind:
        case "ext2":
            run("mkfs.ext2", "-q", loop.device)
        case "swap":
            run("mkswap", loop.device)
        case _:
            partition = (
                bytes([0, 0, 1, 1, 0x83, 0, 0, 1]) + (2048).to_bytes(4, "little") + bytes([0, 8, 0, 0])
            )
            loop.write(446, partition + bytes(48) + b"\x55\xaa")
    assert_refused(loop, f"holds {kind}|is not touched|has partitions")


def test_a_file_system_of_the_other_kind_is_not_touched(loop: Loop) -> None:
    prepare_disk(loop.disk())
    run("umount", str(loop.mount_point))
    assert_refused(loop, "holds ext4, not xfs", loop.disk(FileSystem.XFS))


def test_a_disk_that_is_mounted_elsewhere_stays_there(loop: Loop, tmp_path: Path) -> None:
    prepare_disk(loop.disk())
    other = DataDisk(device=loop.device, mount_point=str(tmp_path / "other"))
    with pytest.raises(DataDiskRefused, match="is mounted on"):
        prepare_disk(other)
    assert not (tmp_path / "other").exists()


def test_a_mount_point_with_files_or_behind_a_link_is_refused(loop: Loop, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop.device)
    loop.mount_point.mkdir()
    (loop.mount_point / "file").touch()
    assert_refused(loop, "not empty")
    link = tmp_path / "link"
    link.symlink_to(loop.mount_point)
    assert_refused(loop, "symbolic link", DataDisk(device=loop.device, mount_point=str(link)))


def test_what_is_not_a_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(_SIZE))
    for device, why in ((tmp_path / "file", "not a block device"), (tmp_path / "missing", "is not there")):
        with pytest.raises(DataDiskRefused, match=why):
            prepare_disk(DataDisk(device=str(device), mount_point=str(tmp_path / "data")))


def test_a_node_takes_no_work_while_a_disk_is_wrong_or_full(loop: Loop, tmp_path: Path) -> None:
    loop.write(0, b"somebody's")
    disks = DataDisks([loop.disk()])
    disks.prepare(state=tmp_path / "state")
    assert "is not touched" in disks.trouble()
    with pytest.raises(Unavailable, match="is to be on a data disk"):
        disks.prepare(state=loop.mount_point / "state")
    loop.write(0, bytes(16))
    mended = DataDisks([loop.disk()])
    mended.prepare(state=loop.mount_point / "state")
    assert mended.trouble() == ""
    floor = DiskFloor(size_bytes=1 << 20, inodes=10)
    assert mended.shortage(floor, was_short=False) == ""
    with (loop.mount_point / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk_space(loop.mount_point).free_bytes - (1 << 19))
    assert mended.shortage(floor, was_short=False).startswith(f"{loop.mount_point}: ")
