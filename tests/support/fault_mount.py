"""A folder that fails on command: starts `faultfs` and tells it what to do."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.coordinator_process import wait_until

_UP_WITHIN_S = 20.0


def lacking() -> str:
    """Why there can be no such folder here; "" = there can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse that may be opened"
    if shutil.which("fusermount3") is None and os.geteuid() != 0:
        return "no fusermount3"
    try:
        import mfusepy  # noqa: F401  # it looks for the library when it is imported
    except (ImportError, OSError, AttributeError) as error:
        return f"no FUSE library: {error}"
    return ""


@dataclass(slots=True, kw_only=True)
class FaultMount:
    """What is written to `path` lands in `root`."""

    path: Path
    root: Path
    _socket: Path
    _daemon: "subprocess.Popen[bytes]"

    def fail(
        self, op: str, *, path: str = "*", nth: int = 1, times: int = 1 << 60, error: str = "EIO"
    ) -> None:
        """From the n-th such operation on, counted from now: `write`, `fsync`, `create`, `unlink`, ..., or
        `change` for any of those that change something. `path` is a pattern like "*-wal"."""
        self._tell("fail", op=op, path=path, nth=nth, times=times, error=error)

    def hang(self, op: str, *, path: str = "*") -> None:
        """Until `clear`."""
        self.fail(op, path=path, error="HANG")

    def clear(self) -> None:
        """Everything works again; what hung goes on."""
        self._tell("clear")

    def remember(self) -> None:
        """From now on a power cut can take back what was not synced."""
        self._tell("remember")

    def cut_power_at(self, nth: int) -> None:
        """At the n-th change from now on the power fails: nothing works any more."""
        self.fail("change", nth=nth, error="CUT")

    def cut_power(self) -> None:
        self._tell("cut")

    @property
    def is_cut(self) -> bool:
        return bool(self._tell("is_cut"))

    def revert(self, *, seed: int, kept: float) -> None:
        """After the power cut, when nobody uses it: takes back what was not synced, but for a random share
        of its sectors. Then unmount."""
        self._tell("revert", seed=seed, kept=kept)

    def counts(self) -> dict[str, int]:
        """Operations so far: by kind ("fsync"), by kind and name ("fsync windlass.db-wal"), and "change"."""
        found: dict[str, int] = self._tell("counts")
        return found

    def kill_daemon(self) -> None:
        """Everything there answers ENOTCONN from now on."""
        self._daemon.kill()
        self._daemon.wait()

    def _tell(self, do: str, **given: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            with connection.makefile("rw") as lines:
                lines.write(json.dumps({"do": do, **given}) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
        assert "error" not in answer, answer
        return answer["is"]


@contextmanager
def fault_mount(path: Path, root: Path) -> Iterator[FaultMount]:
    """`path` shows `root` while the context is open. Ask `lacking` first."""
    path.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    # A short name, for the socket; beside, not below what is looked at for what is left.
    with tempfile.TemporaryDirectory(prefix="faultfs-") as control:
        places = {
            "root": str(root),
            "mount": str(path),
            "shadow": str(root.parent / f"{root.name}.shadow"),
            "socket": f"{control}/socket",
        }
        with Path(control, "log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "tests.support.faultfs"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        assert daemon.stdin is not None
        daemon.stdin.write(json.dumps(places).encode())
        daemon.stdin.close()
        mount = FaultMount(path=path, root=root, _socket=Path(control, "socket"), _daemon=daemon)

        def is_up() -> bool:
            assert daemon.poll() is None, Path(control, "log").read_text()
            return os.path.ismount(path)

        try:
            wait_until(is_up, within_s=_UP_WITHIN_S, what="faultfs is mounted")
            yield mount
        finally:
            _unmount(mount)
            shutil.rmtree(places["shadow"], ignore_errors=True)
            said = Path(control, "log").read_text(errors="replace")
            assert "ncaught" not in said, (
                f"faultfs itself failed, and that looks like a fault of the disk: {said}"
            )


def _unmount(mount: FaultMount) -> None:
    if mount._daemon.poll() is None:
        with suppress(OSError, AssertionError):
            mount.clear()
    subprocess.run(["umount", "--lazy", str(mount.path)], check=False, capture_output=True)
    try:
        mount._daemon.wait(10)
    except subprocess.TimeoutExpired:
        mount.kill_daemon()
