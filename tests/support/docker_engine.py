"""A docker daemon of our own in a scratch directory: no bridge, no firewall rules, nothing shared."""

import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IMAGE = "local/busybox:1"
_DEADLINE_S = 60.0
_CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", "HOME": "/nonexistent"}
_CLIENT = "/usr/bin/docker"
_BUSYBOX = "/bin/busybox"
_TOOLS = (
    "sh",
    "cat",
    "echo",
    "ls",
    "sleep",
    "id",
    "env",
    "true",
    "head",
    "tail",
    "kill",
    "touch",
    "dd",
    "grep",
)


def why_no_docker() -> str:
    """What is missing for tests with docker; "" = nothing."""
    if os.geteuid() != 0:
        return "needs root, for a docker daemon of its own"
    for program in ("dockerd", _CLIENT, _BUSYBOX):
        if shutil.which(program, path=_CLEAN["PATH"]) is None:
            return f"needs {program} (requirements/test_tools.sh)"
    return ""


def busybox_tar() -> bytes:
    """The tar of a file system that holds busybox, under all the names that tests use."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "tmp", "root", "etc", "proc", "sys", "dev"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        tar.add(os.path.realpath(_BUSYBOX), "bin/busybox")
        for name in _TOOLS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


@dataclass(slots=True)
class DockerEngine:
    directory: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        return self.directory / "docker.sock"

    @property
    def settings(self) -> dict[str, str]:
        """Of an agent that uses it."""
        return {"container_engine": "docker", "container_socket": str(self.socket)}

    def docker(self, *arguments: str, given: bytes = b"", check: bool = True) -> str:
        """What the client prints."""
        done = subprocess.run(
            [_CLIENT, "--host", f"unix://{self.socket}", *arguments],
            input=given,
            capture_output=True,
            env=_CLEAN,
            check=False,
            timeout=_DEADLINE_S,
        )
        if check:
            assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """Names of all there are, running or not."""
        return self.docker("ps", "--all", "--format", "{{.Names}}").split()

    def kill(self) -> None:
        """As if it had crashed: containers go on."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        _clear_dead_daemon(self.directory)
        self.process = _start(self.directory)
        _wait_until_up(self)


@contextmanager
def docker_engine(directory: Path) -> Iterator[DockerEngine]:
    """With the image `IMAGE`."""
    for name in ("root", "exec"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    engine = DockerEngine(directory, _start(directory))
    try:
        _wait_until_up(engine)
        engine.docker("import", "-", IMAGE, given=busybox_tar())
        yield engine
    finally:
        engine.process.terminate()
        try:
            engine.process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            engine.process.kill()
            engine.process.wait()
        _clear_dead_daemon(directory)
        _unmount_all(directory)


def _start(directory: Path) -> "subprocess.Popen[bytes]":
    options: Sequence[str] = (
        *("--data-root", str(directory / "root"), "--exec-root", str(directory / "exec")),
        *("--pidfile", str(directory / "dockerd.pid"), "--host", f"unix://{directory / 'docker.sock'}"),
        *("--iptables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false"),
    )
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            ["dockerd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_CLEAN
        )


def _wait_until_up(engine: DockerEngine) -> None:
    give_up_at = time.monotonic() + _DEADLINE_S
    while not engine.docker("version", "--format", "{{.Server.Version}}", check=False):
        assert engine.process.poll() is None, (engine.directory / "log").read_text()[-2000:]
        assert time.monotonic() < give_up_at, "dockerd did not come up"
        time.sleep(0.05)


def _clear_dead_daemon(directory: Path) -> None:
    """What a killed daemon leaves would keep the next one from starting."""
    (directory / "dockerd.pid").unlink(missing_ok=True)
    pid_file = directory / "exec/containerd/containerd.pid"
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if b"containerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def _unmount_all(directory: Path) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split(" ")[4]
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
