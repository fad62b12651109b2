"""Starts the program and tells how it went: what a node and `windlass replay` call."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO

from windlass_proto.unpack.limits import Limits

_PROGRAM = str(Path(__file__).parent)
_REFUSED = 2
_NOBODY = 65534
"""Who unpacks where the directory belongs to root."""
_LOOK_EVERY_S = 0.2


class Verdict(StrEnum):
    UNPACKED = "unpacked"
    REFUSED = "refused"
    """By what is in it: another try would end the same way."""
    FAILED = "failed"
    """By something on this machine, or because it was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    verdict: Verdict
    said: str = ""
    """Why not, in one line."""


def unpack_archive(
    archive: IO[bytes], directory: Path, limits: Limits, *, is_cancelled: Callable[[], bool]
) -> Outcome:
    """Fills the existing directory; its owner owns what is in it. Directories may be there already, of inputs
    and outputs. Raises OSError."""
    with _owner_without_rights(directory) as owner:
        told = replace(limits, libraries=_directory_of_zstandard(), parent=os.getpid())
        if owner is not None:
            told = replace(told, user=owner[0], group=owner[1])
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", _PROGRAM, told.to_json()],
            stdin=archive.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={},
        ) as child:
            return _judge(child, _said(child, is_cancelled))


def _said(child: "subprocess.Popen[bytes]", is_cancelled: Callable[[], bool]) -> str:
    """All that it says until it ends, or until it is stopped."""
    while not is_cancelled():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=_LOOK_EVERY_S)[0].decode(errors="replace").strip()
    child.kill()
    return child.communicate()[0].decode(errors="replace").strip()


def _judge(child: "subprocess.Popen[bytes]", said: str) -> Outcome:
    code = child.returncode
    last = said.splitlines()[-1] if said else "it was ended at one of its limits"
    if code == 0:
        return Outcome(verdict=Verdict.UNPACKED)
    # A limit ends it by its own signal; by this one somebody does, or the kernel without memory.
    if code == _REFUSED or (code < 0 and code != -signal.SIGKILL):
        return Outcome(verdict=Verdict.REFUSED, said=last)
    return Outcome(verdict=Verdict.FAILED, said=said.splitlines()[-1] if said else "the unpacker was killed")


@contextmanager
def _owner_without_rights(directory: Path) -> Iterator[tuple[int, int] | None]:
    """As whom to unpack; None = as ourselves, who may become nobody else.

    What belongs to root belongs to nobody meanwhile, and to root again afterwards: nothing of it runs yet.
    """
    if os.geteuid() != 0:
        yield None
        return
    about = directory.stat()
    if about.st_uid != 0:
        yield about.st_uid, about.st_gid
        return
    try:
        os.chown(directory, _NOBODY, _NOBODY)
    except OSError:  # this root is one of a namespace that has no nobody
        yield None
        return
    try:
        _give_all(directory, _NOBODY, _NOBODY)
        yield _NOBODY, _NOBODY
    finally:
        _give_all(directory, about.st_uid, about.st_gid)


def _give_all(directory: Path, user: int, group: int) -> None:
    """By open directories and following no link, so that nothing outside is ever given away."""
    for _, folders, files, folder in os.fwalk(directory, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, user, group, dir_fd=folder, follow_symlinks=False)
    os.chown(directory, user, group, follow_symlinks=False)


def _directory_of_zstandard() -> str:
    found = importlib.util.find_spec("zstandard")
    return str(Path(found.origin).parents[1]) if found and found.origin else ""
