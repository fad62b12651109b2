"""Containers and the cloud's metadata service, with real engines in a network of the test's own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.docker_engine import why_no_docker
from tests.support.isolated_slots import lacking
from tests.support.podman_engine import why_no_podman
from windlass_agent.isolation.metadata import ADDRESSES

_ANSWERS = "the machine's own credentials"
_SCRIPT = """
import asyncio, json, socket, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.support.agent_system import agent_system
from tests.support.container_jobs import BUSYBOX, an_agent
from tests.support.docker_engine import docker_engine
from tests.support.podman_engine import podman_engine
from tests.support.s3_server import s3_server

class Metadata(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ANSWER.encode() + b"\\n")

    def log_message(self, *_):
        pass

class Six(HTTPServer):
    address_family = socket.AF_INET6

engine, directory, ANSWER, *addresses = sys.argv[1:]
directory = Path(directory)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for address in addresses:
    six = ":" in address
    place = [address + ("/128" if six else "/32"), "dev", "lo", *(["nodad"] if six else [])]
    subprocess.run(["ip", "addr", "add", *place], check=True)
for address in [*addresses, "127.0.0.1"]:
    server = (Six if ":" in address else HTTPServer)((address, 80), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()

HOSTS = " ".join([*addresses, "127.0.0.1"])
ASK = "echo GET / HTTP/1.0 | busybox nc -w 20 $host 80 | grep credentials"
LINE = f"for host in {HOSTS}; do {ASK}; done; true"

async def asked(system, engine, cluster, **work):
    await an_agent(system, engine, cluster, **work)
    done = await system.run(cluster, LINE, container=BUSYBOX)
    assert done.state == "SUCCEEDED", done
    return [line for line in (await system.log(done.job_id)).decode().splitlines() if line]

engines = {"docker": docker_engine, "podman": podman_engine}
(directory / "buckets").mkdir()
with engines[engine](directory / "engine") as engine, s3_server(directory / "buckets") as s3:
    with agent_system(directory, s3) as system:
        found = {
            "blocked": asyncio.run(asked(system, engine, "blocked")),
            "allowed": asyncio.run(asked(system, engine, "allowed", metadata="allowed")),
        }
print(json.dumps(found))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Short, as podman wants it, and other users may pass."""
    with tempfile.TemporaryDirectory(prefix="wl", dir="/tmp", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.mark.parametrize(("engine", "why_none"), [("docker", why_no_docker()), ("podman", why_no_podman())])
def test_a_command_in_a_container_is_kept_from_the_metadata_service(
    engine: str, why_none: str, place: Path
) -> None:
    if missing := why_none or netns.lacking() or lacking():
        pytest.skip(missing)
    addresses = [address for some in ADDRESSES.values() for address in some]
    command = ["unshare", "--net", sys.executable, "-c", _SCRIPT, engine, str(place), _ANSWERS, *addresses]
    env = {**os.environ, "WINDLASS_AGENT_WORK_ISOLATION": "standard"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"blocked": [_ANSWERS], "allowed": [_ANSWERS] * (len(addresses) + 1)}  # loopback alone
