"""What isolated commands must not reach (G14, G15)."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.faults.scenarios import NotRun, scenario
from tests.support import netns
from tests.support.isolated_slots import USERS, isolated, isolated_slot, lacking, make_owned
from windlass_agent.isolation.metadata import ADDRESSES
from windlass_proto.model.specs import Isolation

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


@pytest.mark.parametrize("profile", [Isolation.STANDARD, Isolation.STRICT])
@scenario("G14")
async def test_g14_a_command_reaches_neither_its_keeper_nor_the_agent_nor_another_attempt(
    profile: Isolation,
) -> None:
    """Nor its records, the agent's state and credential, and what another attempt has."""
    if lacking():
        raise NotRun(lacking())
    async with isolated_slot() as slot:
        assert (await slot.run("true", **isolated(profile))).code == 0
        secret = slot.directory / "node.json"
        other = make_owned(slot.directory / "attempts" / "9.0.1" / "work", USERS[0] + 5) / "result"
        for path in (secret, other):
            path.write_text("nobody's business")
        keeper = slot.keeper_pid()
        tries = {
            "kill": f"kill -KILL {keeper}",
            "kill the agent": f"kill -KILL {os.getpid()}",
            "see": f"ls /proc/{keeper}",
            "memory": f"cat /proc/{keeper}/mem",
            "environment": f"cat /proc/{os.getpid()}/environ",
            "descriptors": f"ls /proc/{keeper}/fd",
            "root": f"ls /proc/{keeper}/root/",
            "trace": "python3 -c 'import ctypes,sys; "
            f"sys.exit(ctypes.CDLL(None).ptrace(16, {keeper}, 0, 0) == 0 or 1)'",
            "journal": f"echo '{{}}' >> {slot.directory}/slot/journal.000001",
            "socket": f"ls {slot.directory}/slot/keeper.sock",
            "nonce": f"cat {slot.directory}/slot/keeper.nonce",
            "credential": f"cat {secret}",
            "another attempt": f"cat {other}",
            "remove": f"rm -rf {slot.directory}/attempts/9.0.1/work",
            "group": f"echo $$ > {slot.containment.slot_groups(0).procs}/../cgroup.procs",
        }
        ends = {what: (await slot.run_shell(line, **isolated(profile))).code for what, line in tries.items()}
        assert [what for what, code in ends.items() if code == 0] == ["remove"], (
            ends
        )  # of what it did not find
        assert other.read_text() == secret.read_text() == "nobody's business"
        assert slot.keeper_pid() == keeper
        assert not slot.lost


@scenario("G15")
async def test_g15_metadata_addresses_are_refused_to_the_users_of_isolated_commands_alone() -> None:
    """In a network of the test's own, where every such address answers."""
    if netns.lacking():
        raise NotRun(netns.lacking())
    addresses = [address for some in ADDRESSES.values() for address in some]
    command = ["unshare", "--net", sys.executable, "-c", _SCRIPT, *addresses]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    all_, none = [True] * 4, [False] * 4
    assert done.stdout.splitlines() == [f"{all_}", f"{none} {none} {all_} {all_}", f"{all_}"]
