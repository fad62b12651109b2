"""What else the machine did while something was measured: a figure without it cannot be judged."""

import os
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_LOOPS = 1_000_000
_TRIES = 3
_LOOK_S = 0.4
_QUIET_CORES = 0.15
_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """CPU seconds of the whole machine so far."""

    busy_s: float
    steal_s: float
    at_s: float

    @classmethod
    def now(cls) -> "Machine":
        text = Path("/proc/stat").read_text(encoding="ascii")
        user, nice, system, _, _, irq, softirq, steal = (int(x) for x in text.split(maxsplit=9)[1:9])
        return cls(
            busy_s=(user + nice + system + irq + softirq) / _HZ, steal_s=steal / _HZ, at_s=time.monotonic()
        )


class Noise:
    """Opened before something is measured, told when all that was started for it has ended."""

    def __init__(self, *, patience_s: float) -> None:
        self._idle_cores = await_quiet(patience_s)
        self._cal_ms = [calibrate_ms()]
        self._own_s = _own_cpu_s()
        self._start = Machine.now()

    def told(self) -> dict[str, object]:
        end = Machine.now()
        elapsed_s = end.at_s - self._start.at_s
        own_s = _own_cpu_s() - self._own_s
        return {
            "cal_ms": [*self._cal_ms, calibrate_ms()],
            "busy_cores_before": self._idle_cores,
            "machine_busy_cores": (end.busy_s - self._start.busy_s) / elapsed_s,
            "others_busy_cores": max(0.0, end.busy_s - self._start.busy_s - own_s) / elapsed_s,
            "steal_cores": (end.steal_s - self._start.steal_s) / elapsed_s,
            "load1": os.getloadavg()[0],
            "wall_s": elapsed_s,
        }


def calibrate_ms() -> float:
    """Of a fixed loop: larger than usual = the machine is slow or busy."""
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        x = 0
        for i in range(_LOOPS):
            x += i & 7
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def await_quiet(patience_s: float) -> float:
    """Cores that others use, as soon as they are few or the patience is at its end."""
    give_up_at = time.monotonic() + patience_s
    while (busy := busy_cores_now()) > _QUIET_CORES and time.monotonic() < give_up_at:
        pass
    return busy


def busy_cores_now() -> float:
    """What others use while nothing of ours runs."""
    before = Machine.now()
    time.sleep(_LOOK_S)
    after = Machine.now()
    return (after.busy_s - before.busy_s) / (after.at_s - before.at_s)


def _own_cpu_s() -> float:
    """Of this process and of all that it started and that has ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads and the children it waited for; 0 when it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(x) for x in text.rpartition(")")[2].split()[11:15]) / _HZ


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has no resident memory: it has ended")


def file_system(directory: Path) -> str:
    """Such as "ext4". On a tmpfs syncing costs nothing, and durable figures flatter."""
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def sync_ms(directory: Path) -> float:
    """Median of appending 4 KiB and syncing them."""
    path = directory / "sync-probe"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(20):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    return statistics.median(times)
