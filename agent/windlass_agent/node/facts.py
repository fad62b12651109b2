"""What this machine is: told once per session, and used to decide what fits."""

import os
import platform
import pwd
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from windlass_proto.model.status import NodeFacts

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom commands run as when they run as the agent's own user."""

    user: str
    home: str


def node_facts(*, name: str, slots: int, gpus: int, containment: str) -> NodeFacts:
    return NodeFacts(
        name=name or platform.node(),
        slots=slots,
        cpu=float(psutil.cpu_count() or 1),
        memory_bytes=psutil.virtual_memory().total,
        gpus=gpus,
        agent_version=installed_version(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        containment=containment,
    )


def boot_id() -> str:
    """The kernel's: a new one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def account() -> Account:
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:  # a user id without an entry, as in many containers
        return Account(user=str(os.geteuid()), home="/")
    return Account(user=entry.pw_name, home=entry.pw_dir)


def is_root() -> bool:
    return os.geteuid() == 0


def installed_version() -> str:
    """Of what is installed now: after an upgrade under a running agent that is not the agent's own."""
    try:
        return version("windlass")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
