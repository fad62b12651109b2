"""Podman with a store of its own, in a scratch directory."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.docker_engine import IMAGE, busybox_tar

_CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
_DEADLINE_S = 60.0


def why_no_podman() -> str:
    """What is missing for tests with podman; "" = nothing."""
    if os.geteuid() != 0:
        return "needs root, for containers with limits"
    for program in ("podman", "runc", "busybox"):
        if shutil.which(program, path=_CLEAN["PATH"]) is None:
            return f"needs {program} (requirements/test_tools.sh)"
    return ""


@dataclass(frozen=True, slots=True)
class PodmanEngine:
    directory: Path

    @property
    def options(self) -> list[str]:
        return ["--root", str(self.directory / "root"), "--runroot", str(self.directory / "run")]

    @property
    def settings(self) -> dict[str, str]:
        """Of an agent that uses it."""
        return {"container_engine": "podman", "container_options": " ".join(self.options)}

    def podman(self, *arguments: str, given: bytes = b"") -> str:
        """What it prints."""
        done = subprocess.run(
            ["podman", *self.options, *arguments],
            input=given,
            capture_output=True,
            env=_CLEAN,
            check=False,
            timeout=_DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """Names of all there are, running or not."""
        return self.podman("ps", "--all", "--format", "{{.Names}}").split()


@contextmanager
def podman_engine(directory: Path) -> Iterator[PodmanEngine]:
    """With the image `IMAGE`."""
    engine = PodmanEngine(directory)
    engine.podman("import", "--quiet", "-", IMAGE, given=busybox_tar())
    try:
        yield engine
    finally:
        for name in engine.containers():
            engine.podman("rm", "--force", "--time", "0", name)
        subprocess.run(["umount", "-l", str(directory / "root/overlay")], check=False, capture_output=True)
