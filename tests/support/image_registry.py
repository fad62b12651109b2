"""A registry for container images on the loopback, the one that people run, over a directory."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the registry's settings

from tests.support.s3_server import free_port

PROGRAM = Path("/usr/bin/docker-registry")
USER, PASSWORD = "reader", "the password"
_HTPASSWD = f"{USER}:$2b$04$/4b8KgjdoT4gtQSSZgvtOeG7x0aGWmYHnQdBsZDm21F474blPRgyO\n"
"""The password as the registry wants it: bcrypt, of little work."""
_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class ImageRegistry:
    address: str


@contextmanager
def image_registry(
    root: Path, scratch: Path, *, auth: bool = False, bucket: Mapping[str, Any] | None = None
) -> Iterator[ImageRegistry]:
    """`root` gets what is pushed, or a bucket, by the settings of the registry's S3 driver."""
    address = f"127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"s3": dict(bucket)} if bucket else {"filesystem": {"rootdirectory": str(root)}},
        "http": {"addr": address},
    }
    if auth:
        (scratch / "htpasswd").write_text(_HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(scratch / "htpasswd")}}
    file = scratch / "registry.json"
    file.write_text(json.dumps(settings))
    with (
        (scratch / "registry.log").open("wb") as log,
        subprocess.Popen([str(PROGRAM), "serve", str(file)], stdout=log, stderr=log, env={}) as server,
    ):
        try:
            _wait_for(address, server)
            yield ImageRegistry(address)
        finally:
            server.kill()


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    give_up_at = time.monotonic() + _DEADLINE_S
    while server.poll() is None and time.monotonic() < give_up_at:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the registry did not come up at {address}")
