"""Inputs as commands see them: one large object read cold and again, and ten thousand objects listed.

Through the mount that an attempt gets (rclone, with its overlay), against what the same machine does in the
same round without one. Every round has a fresh mount: nothing is cached but what it read itself.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import psutil

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from tests.support.s3_server import S3Server, s3_server
from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts import InputWay, Storages, open_mounter
from windlass_agent.mounts.base import InputMounter, MountRequest
from windlass_agent.mounts.mounted import read_mounted
from windlass_agent.mounts.network_mount import NetworkPolicy
from windlass_agent.mounts.node_mounts import MountLimits
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import ObjectLocation, parse_object_url

_LARGE_BYTES = 512 << 20
_MANY = 10_000
_PIECE = 1 << 20
_PLAIN = ("--etag-hash", "")
"""The server is not to read whole objects for their names' sake."""
_MIB = 1 << 20


@dataclass(slots=True)
class _Rates:
    """MiB/s of each round."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    download: list[float] = field(default_factory=list)
    local: list[float] = field(default_factory=list)
    local_cached: list[float] = field(default_factory=list)
    daemon_mib: list[float] = field(default_factory=list)
    agent_growth_mib: list[float] = field(default_factory=list)


def measure_read(bench: Bench) -> Iterator[Figure]:
    """The large object through a cold mount, again, by boto3, and as a local file."""
    rates = _Rates()
    place = bench.scratch("mount_read")
    with s3_server(place / "store", *_PLAIN) as store:
        _make_large(store.root / "bucket/large/object")
        _until_shown(store, "oss://bucket/large/", 1)
        for number in range(bench.rounds):
            _read_round(store, place / str(number), rates)
            bench.say(f"mount {number + 1}: {rates.cold[-1]:.0f}, again {rates.warm[-1]:.0f} MiB/s")
    yield of_rounds(
        "mount_cold",
        rates.cold,
        unit="MiB/s",
        reference=Reference(name="boto3_download", value=_median(rates.download)),
        daemon_mib=_median(rates.daemon_mib),
        agent_growth_mib=max(rates.agent_growth_mib),
    )
    yield of_rounds(
        "mount_warm",
        rates.warm,
        unit="MiB/s",
        reference=Reference(name="local_file_from_disk", value=_median(rates.local)),
        local_file_from_memory=_median(rates.local_cached),
    )


def measure_list(bench: Bench) -> Iterator[Figure]:
    """Name, size and time of every one of many objects, as `ls -l` asks for them."""
    seconds, listings = [], []
    place = bench.scratch("mount_list")
    with s3_server(place / "store", *_PLAIN) as store:
        directory = store.root / "bucket/many"
        directory.mkdir(parents=True)
        for number in range(_MANY):
            (directory / f"object-{number:05}").write_bytes(b"x")
        _until_shown(store, "oss://bucket/many/", _MANY)
        for number in range(bench.rounds):
            listings.append(_timed(lambda: _survey(store, "oss://bucket/many/")))
            with _mounted(store, place / str(number), "oss://bucket/many/") as shown:
                seconds.append(_timed(lambda: _list(shown)))
            bench.say(f"mount_list {number + 1}: {seconds[-1]:.2f} s, boto3 {listings[-1]:.2f} s")
    yield of_rounds(
        "mount_list",
        seconds,
        unit="s",
        reference=Reference(name="boto3_listing", value=_median(listings)),
        objects=_MANY,
    )


def _read_round(store: S3Server, place: Path, rates: _Rates) -> None:
    ours = psutil.Process()
    before = ours.memory_info().rss
    with _mounted(store, place, "oss://bucket/large/") as shown:
        rates.cold.append(_rate(shown / "object"))
        rates.warm.append(_rate(shown / "object"))
        rates.daemon_mib.append(_daemon_mib(place))
        rates.agent_growth_mib.append((ours.memory_info().rss - before) / _MIB)
    copy = place / "copy"
    copy.mkdir()
    storage = Storages(store.profiles(), threads=4).for_scheme("oss")
    source = parse_object_url("oss://bucket/large/object")
    took_s = _timed(lambda: storage.fetch_file(source, copy / "object", cancelled=Event()))
    rates.download.append(_LARGE_BYTES / _MIB / took_s)
    _forget_pages(copy / "object")
    rates.local.append(_rate(copy / "object"))
    rates.local_cached.append(_rate(copy / "object"))
    (copy / "object").unlink()


@contextmanager
def _mounted(store: S3Server, root: Path, source: str) -> Iterator[Path]:
    """As an attempt has it."""
    shown = root / "work/in"
    shown.mkdir(parents=True)
    mapping = InputMapping(source=source, destination="in")
    location: ObjectLocation = parse_object_url(source)
    request = MountRequest(
        root=root, inputs=(InputMount(mapping=mapping, location=location, directory=shown),)
    )
    mounter: InputMounter = open_mounter(
        InputWay.MOUNT, MountLimits(), boot_id="bench", network=NetworkPolicy(), local=[]
    )
    mounter.mount(request, Storages(store.profiles(), threads=4), cancelled=Event())
    try:
        yield shown
    finally:
        mounter.release(root)


def _survey(store: S3Server, source: str) -> int:
    storage = Storages(store.profiles(), threads=4).for_scheme("oss")
    return len(storage.survey(parse_object_url(source), most=2 * _MANY).objects)


def _until_shown(store: S3Server, source: str, count: int) -> None:
    """The server looks at its disk now and then."""
    give_up_at = time.monotonic() + 60
    while _survey(store, source) != count:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the store does not show {source}")
        time.sleep(0.1)


def _list(directory: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(directory))


def _make_large(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for _ in range(_LARGE_BYTES // _PIECE):
            file.write(os.urandom(_PIECE))


def _rate(path: Path) -> float:
    """MiB/s, read as a program does."""
    return _LARGE_BYTES / _MIB / _timed(lambda: _read(path))


def _read(path: Path) -> None:
    piece = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def _forget_pages(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _daemon_mib(root: Path) -> float:
    record = read_mounted(root)
    if record is None or record.daemon is None:
        return 0.0
    return float(psutil.Process(record.daemon.pid).memory_info().rss) / _MIB


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _median(values: list[float]) -> float:
    return statistics.median(values)
