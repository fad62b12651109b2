"""A registry kept in object storage: served on this machine for as long as somebody pulls from it.

The registry is the well-kept one that people push with; here it can only be read. It ends with the thread
that asked for it, also when the agent is killed.
"""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windlass_agent.containers.arguments import CLIENT_PATH, program_of
from windlass_agent.containers.base import EngineUnavailable
from windlass_proto.model.storage import ObjectLocation, StorageProfile

_PROGRAMS = ("docker-registry", "registry")
_UP_S = 15.0
_LOOK_S = 0.02
_REFUSALS = re.compile(r"(NoSuchBucket|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch)")


class LocalRegistry:
    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        """HOST:PORT, on the loopback only."""
        self._log = log

    def refusal(self) -> str:
        """Why the object store does not give it what lies there; "" = it does."""
        found = _REFUSALS.search(self._log.read_text(errors="replace"))
        return found[1] if found else ""


def registry_settings(location: ObjectLocation, profile: StorageProfile, address: str) -> dict[str, Any]:
    """The registry's configuration; it holds the keys, so it belongs into a file that nobody else reads."""
    storage: dict[str, Any] = {
        "accesskey": profile.access_key,
        "secretkey": profile.secret_key,
        "region": profile.region,
        "bucket": location.bucket,
        "rootdirectory": "/" + location.key.rstrip("/"),
        "secure": not profile.endpoint.startswith("http://"),
        "v4auth": True,
        "pathstyle": profile.path_style,
    }
    if profile.endpoint:
        storage["regionendpoint"] = profile.endpoint
    return {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "s3": storage,
            "redirect": {"disable": True},
            "maintenance": {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}},
        },
        "http": {"addr": address},
    }


@contextmanager
def local_registry(
    location: ObjectLocation, profile: StorageProfile, *, home: Path, is_cancelled: Callable[[], bool]
) -> Iterator[LocalRegistry]:
    """Raises EngineUnavailable when it does not come up."""
    program = next(filter(None, map(program_of, _PROGRAMS)), None)
    setpriv = program_of("setpriv")
    if program is None or setpriv is None:
        missing = "setpriv" if program else "docker-registry (or registry)"
        raise EngineUnavailable(f"a registry in object storage needs the program {missing} on the node")
    folder = Path(tempfile.mkdtemp(prefix="registry-", dir=home))
    try:
        address = f"127.0.0.1:{_free_port()}"
        settings = folder / "registry.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(registry_settings(location, profile, address)))
        log = folder / "log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", program, "serve", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": CLIENT_PATH, "HOME": str(folder)},
                cwd=folder,
            )
        try:
            _wait_until_up(child, address, is_cancelled)
            settings.unlink()
            yield LocalRegistry(address, log)
        finally:
            child.kill()
            child.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(child: "subprocess.Popen[bytes]", address: str, is_cancelled: Callable[[], bool]) -> None:
    host, _, port = address.partition(":")
    give_up_at = time.monotonic() + _UP_S
    while child.poll() is None and time.monotonic() < give_up_at and not is_cancelled():
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(_LOOK_S)
        else:
            return
    raise EngineUnavailable("the registry over the object store did not come up")
