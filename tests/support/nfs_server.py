"""Real NFS servers on the loopback, in a guest: nobody else uses its ports, and its kernel can mount them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_ports = count(12049)
_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NfsServer:
    path: str
    """As clients name what it exports."""
    root: Path
    """What it exports, as it lies on the disk."""
    options: str
    """With which a client reaches it."""
    process: "subprocess.Popen[bytes]"

    def url(self, path: str | None = None) -> str:
        return f"nfs://127.0.0.1:{self.path if path is None else path}"

    def stop(self) -> None:
        """Its connections stay, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def go(self, how: str) -> None:
        """`killed` or `silent`."""
        if how == "killed":
            self.kill()
        else:
            self.stop()


def why_no_nfs_server() -> str:
    """What is missing; "" = nothing."""
    missing = [name for name in ("ganesha.nfsd", "mount.nfs") if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (packages nfs-ganesha-vfs, nfs-common)" if missing else ""


@contextmanager
def ganesha(directory: Path) -> Iterator[NfsServer]:
    """NFS 4. Beside `root` it exports `/others`, to an address that nobody here has."""
    root, port = directory / "exported", next(_ports)
    for path in (root, directory / "others", directory / "recovery", Path("/run/ganesha")):
        path.mkdir(exist_ok=True)
    config = directory / "ganesha.conf"
    config.write_text(_SETTINGS.replace("@PORT@", str(port)).replace("@DIR@", str(directory)))
    argv = [
        *("ganesha.nfsd", "-F", "-f", str(config)),
        *("-L", str(directory / "ganesha.log"), "-p", str(directory / "ganesha.pid")),
    ]
    yield from _serve(
        argv, port, path="/a b,c", root=root, options=f"port={port}", log=directory / "ganesha.log"
    )


@contextmanager
def rclone_nfs(directory: Path) -> Iterator[NfsServer]:
    """NFS 3."""
    root, port = directory / "exported by rclone", next(_ports)
    root.mkdir()
    argv = [
        *(str(Path(sys.executable).with_name("rclone")), "serve", "nfs", str(root)),
        *("--addr", f"127.0.0.1:{port}", "--config", os.devnull, "--vfs-cache-mode", "full"),
        *("--vfs-write-back", "100ms"),
        *("--cache-dir", str(directory / "cache"), "--log-file", str(directory / "rclone.log")),
    ]
    options = f"vers=3,port={port},mountport={port},proto=tcp,mountproto=tcp"
    yield from _serve(argv, port, path="/", root=root, options=options, log=directory / "rclone.log")


def _serve(
    argv: list[str], port: int, *, path: str, root: Path, options: str, log: Path
) -> Iterator[NfsServer]:
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process, log)
            yield NfsServer(path=path, root=root, options=options, process=process)
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_at = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            ended = process.poll() is not None or time.monotonic() > give_up_at
            said = log.read_text()[-2000:] if log.exists() else ""
            assert not ended, f"the NFS server is not there: {said}"
            time.sleep(0.05)
        else:
            return


_SETTINGS = """\
NFS_CORE_PARAM {
    Protocols = 4; NFS_Port = @PORT@; Bind_addr = 127.0.0.1;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}
NFSV4 { Graceless = true; Minor_Versions = 0,1,2; RecoveryBackend = fs_ng; RecoveryRoot = "@DIR@/recovery"; }
EXPORT_DEFAULTS { SecType = sys; Squash = No_Root_Squash; Protocols = 4; Transports = TCP; }
EXPORT { Export_Id = 1; Path = "@DIR@/exported"; Pseudo = "/a b,c"; Access_Type = RW; FSAL { Name = VFS; } }
EXPORT {
    Export_Id = 2; Path = "@DIR@/others"; Pseudo = "/others"; Access_Type = None; FSAL { Name = VFS; }
    CLIENT { Clients = 192.0.2.1; Access_Type = RW; }
}
LOG { Default_Log_Level = EVENT; }
NFS_KRB5 { Active_krb5 = false; }
"""
