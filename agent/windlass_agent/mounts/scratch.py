"""The private layer over read-only objects: where the command's own new files go.

Every directory in which the command may make files must be there before the overlay is mounted, with the
sticky bit: it lets an ordinary user add files and keeps him from removing or replacing those of others,
which the objects are (decision 0011). Of a huge tree only the first directories are known; in the others
nothing can be made.
"""

from collections.abc import Iterable
from pathlib import Path

from windlass_agent.mounts.base import SeenObject

_STICKY = 0o1777
LONGEST_NAME = 255
"""Bytes; what the kernel takes."""


def make_scratch(folder: Path, directories: Iterable[str]) -> None:
    """`folder/upper` and `folder/work` for an overlay; `directories` from the input's own on."""
    upper = folder / "upper"
    upper.mkdir(parents=True)
    (folder / "work").mkdir()
    upper.chmod(_STICKY)
    for directory in directories:
        path = upper / directory
        path.mkdir()
        path.chmod(_STICKY)


def directories_of(objects: Iterable[SeenObject]) -> list[str]:
    """Outer ones first."""
    found: set[str] = set()
    for one in objects:
        parts = one.name.split("/")[:-1]
        if is_fit(one.name):
            found.update("/".join(parts[:n]) for n in range(1, len(parts) + 1))
    return sorted(found)


def is_fit(name: str) -> bool:
    """Whether an object can be a file of that name; the key of an object may be anything."""
    parts = name.removesuffix("/").split("/")
    return all(
        part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= LONGEST_NAME
        for part in parts
    )
