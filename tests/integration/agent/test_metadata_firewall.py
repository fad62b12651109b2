"""G15: isolated commands do not reach a metadata service; in a network of the test's own."""

import subprocess
import sys

import pytest

from tests.support.netns import lacking
from windlass_agent.isolation.metadata import ADDRESSES

_SCRIPT = """
import os, socket, subprocess, sys
from windlass_agent.core.isolation import UserRange
from windlass_agent.isolation.metadata import block_metadata, unblock_metadata

def ip(*words): subprocess.run(["ip", *words], check=True)

ip("link", "set", "lo", "up")
addresses = sys.argv[1:]
servers = []
for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    six = family == socket.AF_INET6
    ip("addr", "add", address + ("/128" if six else "/32"), "dev", "lo", *(["nodad"] if six else []))
    server = socket.socket(family)
    server.bind((address, 80))
    server.listen()
    servers.append((family, address, server))

def reaches(uid):
    found = []
    for family, address, _ in servers:
        pid = os.fork()
        if pid == 0:
            os.setresuid(uid, uid, uid)
            with socket.socket(family) as client:
                client.settimeout(20)
                try:
                    client.connect((address, 80))
                except OSError:
                    os._exit(1)
            os._exit(0)
        found.append(os.waitpid(pid, 0)[1] == 0)
    return found

users = UserRange(first=900_000_000, count=100)
print(reaches(users.first))
for _ in range(2):
    assert block_metadata(users) == "", block_metadata(users)
print(reaches(users.first), reaches(users.last), reaches(users.last + 1), reaches(0))
unblock_metadata(users)
print(reaches(users.first))
"""


def test_metadata_addresses_are_refused_to_the_users_of_isolated_commands_alone() -> None:
    if lacking():
        pytest.skip(f"not run: {lacking()}")
    addresses = [address for some in ADDRESSES.values() for address in some]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _SCRIPT, *addresses],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    all_, none = [True] * 4, [False] * 4
    assert done.stdout.splitlines() == [f"{all_}", f"{none} {none} {all_} {all_}", f"{all_}"]
