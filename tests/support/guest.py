"""A virtual machine with a kernel of its own, whose root is this machine's, which it cannot change.

For what this machine's kernel cannot do: NFS, cgroups of version 2 alone. Programs, the environment and this
checkout are the ones outside; what is written there is in memory and gone with it, but for `RESULTS`. Without
hardware help, so Python is ten times slower in it.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
RESULTS = Path("/run/results")
"""In the guest: the directory outside that it was given."""
INSIDE = "WINDLASS_TEST_GUEST"
"""Set in the guest."""
_IMAGE = CHECKOUT / ".venv/guest"
_KERNEL = (
    "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off nokaslr random.trust_cpu=on audit=0"
    " apparmor=0 cryptomgr.notests tsc=reliable no_timer_check"
)


def why_no_guest() -> str:
    """What is missing; "" = nothing."""
    if os.geteuid() != 0:
        return "needs root, for a guest that reads all of this machine's files"
    missing = [name for name in ("qemu-system-x86_64", "timeout") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (package qemu-system-x86)"
    if not (_IMAGE / "initrd").exists():
        return "needs a kernel for the guest (requirements/guest.sh says what keeps it from getting one)"
    return ""


def run_in_guest(directory: Path, script: str, *, within_s: int) -> str:
    """What the shell script said. `directory` is `RESULTS` there; raises when it does not come to its end."""
    ended = directory / "ended"
    (directory / "run").write_text(
        f"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp {INSIDE}=1\n"
        f"cd {CHECKOUT}\n"
        f"(\n{script}\n) </dev/null >{RESULTS}/said 2>&1\n"
        f"echo $? >{RESULTS}/ended\n"
        "exec busybox poweroff -f\n"
    )
    argv = ["timeout", "--kill-after=5", str(within_s), *_qemu(directory)]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as vm:
        try:
            _, complaint = vm.communicate(timeout=within_s + 10)
        finally:
            vm.terminate()  # `timeout` hands it on
    said = _text(directory / "said")
    if not ended.exists():
        shown = "\n".join((complaint.decode(errors="replace"), _text(directory / "console"), said))
        raise AssertionError(f"the guest did not end within {within_s} s:\n{shown[-4000:]}")
    return said


def _qemu(directory: Path) -> list[str]:
    share = "local,security_model=none,multidevs=remap"
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "q35", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-smp", "2", "-m", "1024"),
        *("-serial", f"file:{directory}/console"),
        *("-kernel", str(_IMAGE / "vmlinuz"), "-initrd", str(_IMAGE / "initrd")),
        *("-append", f"{_KERNEL} windlass.checkout={CHECKOUT}"),
        *(
            "-fsdev",
            f"{share},id=host,path=/,readonly=on",
            "-device",
            "virtio-9p-pci,fsdev=host,mount_tag=host",
        ),
        *("-fsdev", f"{share},id=results,path={directory}"),
        *("-device", "virtio-9p-pci,fsdev=results,mount_tag=results"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def _text(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text(errors="replace")
    return ""
