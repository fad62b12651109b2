"""A disk that is small and can be made full: a tmpfs."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def lacking() -> str:
    """Why there can be none here; "" = there can."""
    return "" if os.geteuid() == 0 else "mounting a tmpfs needs root"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    path: Path

    def fill(self, *, leaving_bytes: int = 0) -> None:
        """With a file of its own; what is there stays."""
        block = b"\0" * (64 << 10)
        with self._filler.open("ab", buffering=0) as file:
            while (free := self.free_bytes() - leaving_bytes) > 0:
                try:
                    file.write(block[: min(free, len(block))])
                except OSError:
                    return

    def empty(self) -> None:
        """The filler goes."""
        self._filler.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        about = os.statvfs(self.path)
        return about.f_bavail * about.f_frsize

    @property
    def _filler(self) -> Path:
        return self.path / "filler"


@contextmanager
def small_disk(path: Path, *, size_bytes: int, inodes: int = 0) -> Iterator[SmallDisk]:
    """`path` is on it while the context is open. Ask `lacking` first."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0700" + (f",nr_inodes={inodes}" if inodes else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small-disk", str(path)], check=True)
    try:
        yield SmallDisk(path=path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
