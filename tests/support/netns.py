"""Two network namespaces with a cable between them, and firewall rules on it: a partition by the kernel.

The coordinator lives here, at the near end of the cable; an agent that is started with `prefix` lives at the
far end.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def lacking() -> str:
    """Why there can be no such cable here; "" = there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "iptables", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}"
    tried = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"ip netns: {tried.stderr.decode().strip()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    namespace: str
    near: str
    """Address of this machine on it."""
    far: str

    @property
    def prefix(self) -> list[str]:
        """Before a command line: it runs at the far end."""
        # `ip netns exec` would put another /sys in front of the cgroups.
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def drop(self, *, to_near: bool = True, to_far: bool = True) -> None:
        """Packets of these directions vanish."""
        if to_near:
            self._far("iptables", "-A", "OUTPUT", "-d", self.near, "-j", "DROP")
        if to_far:
            self._far("iptables", "-A", "INPUT", "-s", self.near, "-j", "DROP")

    def lose(self, share: float) -> None:
        """That share of the packets vanishes, in both directions."""
        for chain in ("INPUT", "OUTPUT"):
            self._far(
                *("iptables", "-A", chain, "-m", "statistic", "--mode", "random"),
                *("--probability", str(share), "-j", "DROP"),
            )

    def heal(self) -> None:
        self._far("iptables", "-F")

    def _far(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, capture_output=True)


@contextmanager
def cable(number: int) -> Iterator[Cable]:
    """`number` below 250 tells cables apart. Ask `lacking` first."""
    name = f"wl{os.getpid()}x{number}"[:14]
    near, far = f"10.213.{number}.1", f"10.213.{number}.2"
    ends = f"{name}a", f"{name}b"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
        _run("ip", "addr", "add", f"{near}/30", "dev", ends[0])
        _run("ip", "link", "set", ends[0], "up")
        _run("ip", "-n", name, "addr", "add", f"{far}/30", "dev", ends[1])
        _run("ip", "-n", name, "link", "set", ends[1], "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield Cable(namespace=name, near=near, far=far)
    finally:
        subprocess.run(["ip", "link", "del", ends[0]], check=False, capture_output=True)
        _run("ip", "netns", "del", name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
