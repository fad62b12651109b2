"""Packs the input of this example: the sources of this machine's Python standard library, as one archive.

python prepare.py FILE
"""

import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})


def library_files(library: Path) -> Iterator[Path]:
    """Without what was installed into it, and without tests: not every machine has them."""
    for path in sorted(library.rglob("*.py")):
        if path.is_file() and not NOT_THE_LIBRARY & set(path.relative_to(library).parts):
            yield path


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def pack(library: Path, archive: Path) -> int:
    """How many files it holds now."""
    count = 0
    with tarfile.open(archive, "w", dereference=True) as out:
        for path in library_files(library):
            out.add(path, arcname=str(path.relative_to(library)))
            count += 1
    return count


if __name__ == "__main__":
    print(f"{pack(standard_library(), Path(sys.argv[1]))} files")
