"""The folder that fails on command: what fails there is what was told to, and nothing else."""

import os
from pathlib import Path

import pytest

from tests.support import fault_mount

pytestmark = pytest.mark.skipif(bool(why := fault_mount.lacking()), reason=why)


def test_an_open_file_that_has_lost_its_name_works_on(tmp_path: Path) -> None:
    with fault_mount.fault_mount(tmp_path / "mount", tmp_path / "root") as mount:
        mount.remember()
        file = mount.path / "file"
        file.write_bytes(b"first")
        with file.open("r+b", buffering=0) as opened:
            (mount.path / "new").write_bytes(b"second")
            (mount.path / "new").replace(file)
            opened.write(b"FI")
            os.fsync(opened.fileno())
            assert os.pread(opened.fileno(), 5, 0) == b"FIrst"
        assert file.read_bytes() == b"second"


def test_a_mistake_of_its_own_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    def make_a_file() -> None:
        with fault_mount.fault_mount(tmp_path / "mount", tmp_path / "root") as mount:
            mount.fail("create", error="NO_SUCH_ERROR")
            with pytest.raises(OSError, match="Invalid argument"):
                (mount.path / "file").touch()

    with pytest.raises(AssertionError, match="faultfs itself failed"):
        make_a_file()
