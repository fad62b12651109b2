"""A FUSE file system that passes everything on to a folder, and fails where it is told to. Runs by itself.

It can answer the n-th operation of a kind with an error, let operations hang, and forget what was not synced
as a power cut does. For that it keeps, for each change since the last sync, what takes it back: old bytes,
old sizes, old names. A sync of a file makes its bytes and its name durable; a sync of a folder, its names
(what journalling file systems promise and SQLite relies on).

The program reads its places as JSON from standard input and takes commands, a JSON line each, on a Unix
socket: see `fault_mount.py`, which starts it.
"""

import errno
import fnmatch
import json
import os
import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mfusepy

_SECTOR = 512
_CHANGES = (
    "write",
    "create",
    "truncate",
    "unlink",
    "rename",
    "mkdir",
    "rmdir",
    "symlink",
    "fsync",
    "fsyncdir",
)


@dataclass(slots=True, kw_only=True)
class Rule:
    """Operations `op` on names like `path`: from the n-th on, `times` of them fail or hang."""

    op: str
    path: str = "*"
    nth: int = 1
    times: int = 1 << 60
    error: str = "EIO"
    """Of errno; HANG = waits until the rule is gone; CUT = the power fails."""
    seen: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def applies(self, op: str, path: str) -> bool:
        if not (fnmatch.fnmatch(op, self.op) and fnmatch.fnmatch(path, self.path)):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


@dataclass(slots=True, kw_only=True)
class Undo:
    """Takes one change back."""

    inode: int
    folder: str
    """Where a name changed; "" for bytes."""
    do: Callable[[random.Random, float], None]
    forget: Callable[[], None] = lambda: None


class FaultFs(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    use_ns = True

    def __init__(self, root: str, shadow: str) -> None:
        self._root, self._shadow = root, shadow
        self._lock = threading.RLock()
        self._rules: list[Rule] = []
        self._undo: list[Undo] = []
        self._is_cut = False
        self._remembers = False
        self._shadows = 0
        self.counts: Counter[str] = Counter()

    # -- commands

    def command(self, do: str, **given: Any) -> Any:
        match do:
            case "fail":
                with self._lock:
                    self._rules.append(Rule(**given))
            case "clear":
                with self._lock:
                    rules, self._rules = self._rules, []
                for rule in rules:
                    rule.released.set()
            case "remember":
                self._remembers = True
            case "cut":
                self._is_cut = True
            case "revert":
                self._revert(**given)
            case "counts":
                return dict(self.counts)
            case "is_cut":
                return self._is_cut
            case _:
                raise ValueError(do)
        return None

    def _revert(self, *, seed: int, kept: float) -> None:
        """After a cut: what was not synced is taken back, but for a random share of the written sectors."""
        rng = random.Random(seed)
        with self._lock:
            for undo in reversed(self._undo):
                undo.do(rng, kept)
            for undo in self._undo:
                undo.forget()
            self._undo = []

    # -- faults

    def _enter(self, op: str, path: str | None) -> None:
        """No path = of an open file that has lost its name, by being replaced for example."""
        path = path or ""
        with self._lock:
            self.counts[op] += 1
            self.counts[f"{op} {os.path.basename(path)}"] += 1
            if op in _CHANGES:
                self.counts["change"] += 1
            rule = next((rule for rule in self._rules if self._hits(rule, op, path)), None)
            if rule is not None and rule.error == "CUT":
                self._is_cut = True
            if self._is_cut:
                raise OSError(errno.EIO, "the power is off")
        if rule is None:
            return
        if rule.error == "HANG":
            rule.released.wait()
            return
        raise OSError(getattr(errno, rule.error), op)

    @staticmethod
    def _hits(rule: Rule, op: str, path: str) -> bool:
        if rule.op != "change":
            return rule.applies(op, path)
        # What a program has mapped stays in memory when a real disk refuses it; here it would be forgotten.
        return op in _CHANGES and not path.endswith("-shm") and rule.applies("change", path)

    # -- what a power cut takes back

    def _note_bytes(self, fd: int, offset: int, size: int) -> None:
        if not self._remembers:
            return
        about = os.fstat(fd)
        old, old_size, keep = os.pread(fd, size, offset), about.st_size, os.dup(fd)

        def undo(rng: random.Random, kept: float) -> None:
            for start in range(0, len(old), _SECTOR):
                if rng.random() >= kept:
                    os.pwrite(keep, old[start : start + _SECTOR], offset + start)
            if old_size < os.fstat(keep).st_size and rng.random() >= kept:
                os.ftruncate(keep, old_size)

        self._undo.append(Undo(inode=about.st_ino, folder="", do=undo, forget=lambda: os.close(keep)))

    def _note_size(self, path: str) -> None:
        if not self._remembers:
            return
        fd = os.open(path, os.O_RDWR)
        about = os.fstat(fd)
        tail = os.pread(fd, about.st_size, 0)

        def undo(_rng: random.Random, _kept: float) -> None:
            os.ftruncate(fd, about.st_size)
            os.pwrite(fd, tail, 0)

        self._undo.append(Undo(inode=about.st_ino, folder="", do=undo, forget=lambda: os.close(fd)))

    def _note_name(self, path: str, do: Callable[[], None]) -> None:
        if self._remembers:
            inode = os.lstat(path).st_ino if os.path.lexists(path) else 0
            folder = os.path.dirname(path)
            self._undo.append(Undo(inode=inode, folder=folder, do=lambda _rng, _kept: do()))

    def _put_aside(self, path: str) -> str:
        """A second name for what is about to lose its name."""
        self._shadows += 1
        aside = f"{self._shadow}/{self._shadows}"
        os.link(path, aside)
        return aside

    def _made_durable(self, inode: int) -> None:
        left = []
        for undo in self._undo:
            if undo.inode == inode:
                undo.forget()
            else:
                left.append(undo)
        self._undo = left

    # -- the operations

    def _at(self, path: str) -> str:
        return self._root + path

    def init(self, path: str) -> None:
        pass

    def access(self, path: str, amode: int) -> int:
        if not os.access(self._at(path), amode):
            raise OSError(errno.EACCES, path)
        return 0

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        self._enter("getattr", path)
        if fh is not None:
            about = os.fstat(fh)
        else:
            assert path is not None, "a file has a name or is open"
            about = os.lstat(self._at(path))
        names = ("mode", "nlink", "uid", "gid", "size", "ino", "blocks")
        found: dict[str, Any] = {f"st_{name}": getattr(about, f"st_{name}") for name in names}
        for name in ("atime", "mtime", "ctime"):
            found[f"st_{name}"] = getattr(about, f"st_{name}_ns")
        return found

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._at(path), ns=times) if times else os.utime(self._at(path))
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._enter("create", path)
        real = self._at(path)
        with self._lock:
            is_new = not os.path.lexists(real)
            fd = os.open(real, os.O_RDWR | os.O_CREAT, mode)
            if is_new:
                self._note_name(real, lambda: _remove(real))
        return fd

    def open(self, path: str, flags: int) -> int:
        self._enter("open", path)
        real = self._at(path)
        if flags & os.O_TRUNC:
            with self._lock:
                self._note_size(real)
        # Undoing a write reads what was there; appending is the kernel's business, which tells the offset.
        mode = os.O_RDONLY if flags & os.O_ACCMODE == os.O_RDONLY else os.O_RDWR
        return os.open(real, mode | flags & os.O_TRUNC)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        self._enter("read", path)
        return os.pread(fh, size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        self._enter("write", path)
        with self._lock:
            self._note_bytes(fh, offset, len(data))
            return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._enter("truncate", path)
        with self._lock:
            self._note_size(self._at(path))
            os.truncate(self._at(path) if fh is None else fh, length)
        return 0

    def flush(self, path: str | None, fh: int) -> int:
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        self._enter("fsync", path)
        with self._lock:
            self._made_durable(os.fstat(fh).st_ino)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._enter("fsyncdir", path)
        with self._lock:
            self._undo = [undo for undo in self._undo if undo.folder != self._at(path).rstrip("/")]
        return 0

    def release(self, path: str | None, fh: int) -> int:
        os.close(fh)
        return 0

    def readdir(self, path: str, fh: int) -> list[str]:
        self._enter("readdir", path)
        return [".", "..", *os.listdir(self._at(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def symlink(self, target: str, source: str) -> int:
        self._enter("symlink", target)
        os.symlink(source, self._at(target))
        return 0

    def link(self, target: str, source: str) -> int:
        self._enter("link", target)
        os.link(self._at(source), self._at(target))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._enter("mkdir", path)
        with self._lock:
            real = self._at(path)
            os.mkdir(real, mode)
            self._note_name(real, lambda: _remove_folder(real))
        return 0

    def rmdir(self, path: str) -> int:
        self._enter("rmdir", path)
        with self._lock:
            real = self._at(path)
            self._note_name(real, lambda: os.makedirs(real, exist_ok=True))
            os.rmdir(real)
        return 0

    def unlink(self, path: str) -> int:
        self._enter("unlink", path)
        with self._lock:
            real = self._at(path)
            if self._remembers:
                aside = self._put_aside(real)
                self._note_name(real, lambda: _put_back(aside, real))
            os.unlink(real)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._enter("rename", new)
        with self._lock:
            source, target = self._at(old), self._at(new)
            if self._remembers:
                replaced = self._put_aside(target) if os.path.isfile(target) else ""

                def undo() -> None:
                    if os.path.lexists(target):
                        os.rename(target, source)
                    if replaced:
                        _put_back(replaced, target)

                inode = os.lstat(source).st_ino
                folder = os.path.dirname(target)
                self._undo.append(Undo(inode=inode, folder=folder, do=lambda _rng, _kept: undo()))
            os.rename(source, target)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        about = os.statvfs(self._at(path))
        names = (
            "bavail",
            "bfree",
            "blocks",
            "bsize",
            "favail",
            "ffree",
            "files",
            "flag",
            "frsize",
            "namemax",
        )
        return {f"f_{name}": getattr(about, f"f_{name}") for name in names}


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _remove_folder(path: str) -> None:
    if os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)


def _put_back(aside: str, path: str) -> None:
    if os.path.isdir(os.path.dirname(path)):
        _remove(path)
        os.link(aside, path)


def _serve(fs: FaultFs, listener: socket.socket) -> None:
    """One command after another; the answer is a line too."""
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            for line in lines:
                try:
                    answer: Any = {"is": fs.command(**json.loads(line))}
                except Exception as error:  # noqa: BLE001  # whoever asked is to know
                    answer = {"error": repr(error)}
                lines.write(json.dumps(answer) + "\n")
                lines.flush()


def main() -> None:
    places = json.load(sys.stdin)
    os.makedirs(places["shadow"], exist_ok=True)
    fs = FaultFs(places["root"], places["shadow"])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(places["socket"])
    listener.listen()
    threading.Thread(target=_serve, args=(fs, listener), daemon=True).start()
    mfusepy.FUSE(
        fs, places["mount"], foreground=True, hard_remove=True, default_permissions=True, fsname="faultfs"
    )


if __name__ == "__main__":
    main()
