"""Keeps isolated commands from the clouds' metadata services, which give a machine's own credentials to
whoever asks from it.

By user id in the firewall's OUTPUT, once per start of the agent: nothing per attempt, and nothing for anybody
else on the machine. Commands with a network of their own (`strict`) reach nothing anyway. Commands in
containers are root and have the node's network: they are known by a supplementary group, which they could lay
down with CAP_SETGID only, and have not.
"""

import shutil
import subprocess
from collections.abc import Mapping

from windlass_agent.core.isolation import UserRange

ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "iptables": ("169.254.169.254", "100.100.100.200", "169.254.0.23"),
    "ip6tables": ("fd00:ec2::254",),
}
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_WITHIN_S = 30.0


def block_metadata(users: UserRange) -> str:
    """May be repeated, as an agent that was killed left its rules. Why it cannot be had; "" = it is done."""
    for program, addresses in ADDRESSES.items():
        problem = _block(program, addresses, users)
        if problem:
            return f"metadata addresses are not blocked: {problem}"
    return ""


def container_group(users: UserRange) -> int:
    """The group by which commands in containers are known; as the users, nobody else's on the machine."""
    return users.last


def block_metadata_in_containers(users: UserRange) -> str:
    """The same, once `block_metadata` is done, for processes with the `container_group`."""
    for program in ADDRESSES:
        jump = _jump_of_containers(users)
        problem = _tables(program, "-C", *jump) and _tables(program, "-I", *jump)
        if problem:
            return f"metadata addresses are not blocked for containers: {problem}"
    return ""


def unblock_metadata(users: UserRange) -> None:
    """When no command of these users runs any more."""
    for program in ADDRESSES:
        _tables(program, "-D", *_jump(users))
        _tables(program, "-D", *_jump_of_containers(users))
        for action in ("-F", "-X"):
            _tables(program, action, _chain(users))


def _block(program: str, addresses: tuple[str, ...], users: UserRange) -> str:
    if not shutil.which(program, path=_PATH):
        return f"{program} is not installed"
    chain = _chain(users)
    _tables(program, "-N", chain)
    problem = _tables(program, "-F", chain)
    for address in addresses:
        problem = problem or _tables(program, "-A", chain, "-d", address, "-j", "REJECT")
    if not problem and _tables(program, "-C", *_jump(users)):
        problem = _tables(program, "-I", *_jump(users))
    return problem


def _chain(users: UserRange) -> str:
    return f"windlass-{users.first}"


def _jump(users: UserRange) -> tuple[str, ...]:
    who = f"{users.first}-{users.last}"
    return ("OUTPUT", "-m", "owner", "--uid-owner", who, "-j", _chain(users))


def _jump_of_containers(users: UserRange) -> tuple[str, ...]:
    group = str(container_group(users))
    return ("OUTPUT", "-m", "owner", "--gid-owner", group, "--suppl-groups", "-j", _chain(users))


def _tables(program: str, *arguments: str) -> str:
    """What it complains of; "" = nothing."""
    command = [shutil.which(program, path=_PATH) or program, "-w", "10", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    lines = done.stderr.strip().splitlines()
    return (lines[0] if lines else f"{program} ended with {done.returncode}") if done.returncode else ""
