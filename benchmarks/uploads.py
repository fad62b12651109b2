"""Outputs of a command on their way into an object store: a thousand files, through the steps of the agent.

`rclone copy` of the same files to the same server, in the same round, is the reference. The agent's part runs
in a process of its own, so that its memory can be told. The server is the embedded one: it copies an object
by reading and writing it, which a large object store does not, so staging and publishing are told apart.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from benchmarks.programs import BenchFailed
from tests.support.s3_server import S3Server, clean_of_bundles, s3_server
from windlass_agent.core.mount_plan import plan_mounts
from windlass_agent.core.output_gate import Grant, Wish
from windlass_agent.mounts import Storages
from windlass_agent.mounts.copied_inputs import CopiedInputs
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepSettings
from windlass_agent.runner.steps.outputs import store_results
from windlass_proto.model.ids import AttemptRef, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.specs import Argv, OutputMapping, TaskSpec
from windlass_proto.model.storage import StorageProfile, StorageProfiles

_FILES = 1_000
_FILE_BYTES = 1 << 20
_MIB = 1 << 20
_THREADS = 4
_LONG = timedelta(hours=1)


def measure(bench: Bench) -> Iterator[Figure]:
    """MiB/s of the upload; `whole` is until everything is published and compared."""
    place = bench.scratch("upload")
    source = place / "files"
    source.mkdir()
    for number in range(_FILES):
        (source / f"{number:04}").write_bytes(os.urandom(_FILE_BYTES))
    staged, whole, copied, growth = [], [], [], []
    with s3_server(place / "store") as store:
        for number in range(bench.rounds):
            copied.append(_rclone_copy(store, source, f"bucket{number}"))
            said = _upload(store, source, place / f"attempt-{number}", f"bucket{number}")
            staged.append(_FILES * _FILE_BYTES / _MIB / said["staged_s"])
            whole.append(_FILES * _FILE_BYTES / _MIB / said["whole_s"])
            growth.append(said["growth_mib"])
            rates = f"{staged[-1]:.0f} MiB/s, published {whole[-1]:.0f}, rclone {copied[-1]:.0f}"
            bench.say(f"upload {number + 1}: {rates}")
            shutil.rmtree(store.root / f"bucket{number}")
    yield of_rounds(
        "upload",
        staged,
        unit="MiB/s",
        reference=Reference(name="rclone_copy", value=median(copied)),
        whole=median(whole),
        whole_ratio=median(whole) / median(copied),
        agent_growth_mib=max(growth),
    )


def _rclone_copy(store: S3Server, source: Path, bucket: str) -> float:
    (store.root / bucket).mkdir(parents=True)
    profile = store.profile()
    env = clean_of_bundles() | {
        "RCLONE_CONFIG_HERE_TYPE": "s3",
        "RCLONE_CONFIG_HERE_PROVIDER": "Rclone",
        "RCLONE_CONFIG_HERE_ENDPOINT": profile.endpoint,
        "RCLONE_CONFIG_HERE_ACCESS_KEY_ID": profile.access_key,
        "RCLONE_CONFIG_HERE_SECRET_ACCESS_KEY": profile.secret_key,
    }
    rclone = str(Path(sys.executable).with_name("rclone"))
    command = [rclone, "copy", "--config", os.devnull, "--transfers", str(_THREADS)]
    began = time.perf_counter()
    subprocess.run([*command, str(source), f"here:{bucket}/rclone"], env=env, check=True)
    return _FILES * _FILE_BYTES / _MIB / (time.perf_counter() - began)


def _upload(store: S3Server, source: Path, root: Path, bucket: str) -> dict[str, float]:
    (root / "work").mkdir(parents=True)
    shutil.copytree(source, root / "work/out", copy_function=os.link)
    profile = store.profile()
    task = json.dumps([profile.endpoint, profile.access_key, profile.secret_key, str(root), bucket])
    command = [sys.executable, "-m", "benchmarks.uploads"]
    child = subprocess.run(command, input=task, capture_output=True, text=True, check=False)
    if child.returncode:
        raise BenchFailed(f"the upload ended with {child.returncode}:\n{child.stderr[-2000:]}")
    said: dict[str, float] = json.loads(child.stdout)
    return said


class _Gate:
    """Grants everything, and notes when it was asked."""

    def __init__(self) -> None:
        self.asked_at = 0.0

    async def held(self) -> None:
        return

    def check(self) -> None:
        return

    async def commit(self, wish: Wish) -> Grant:
        self.asked_at = time.perf_counter()
        return Grant(granted=True)


async def _store(profile: StorageProfile, root: Path, bucket: str) -> dict[str, float]:
    """What the agent does after a command."""
    gate = _Gate()
    storages = Storages(StorageProfiles(by_scheme={"s3": profile}), threads=_THREADS)
    storages.for_scheme("s3")  # its library is loaded once in an agent's life
    context = _context(storages, gate, root, bucket)
    before = _memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    began = time.perf_counter()
    failure = await store_results(context, {}, with_directories=True)
    whole_s = time.perf_counter() - began
    if failure is not None:
        raise BenchFailed(failure.reason)
    return {
        "staged_s": gate.asked_at - began,
        "whole_s": whole_s,
        "growth_mib": _memory_mib("VmHWM") - before,
    }


def _context(storages: Storages, gate: _Gate, root: Path, bucket: str) -> StepContext:
    outputs = (OutputMapping(source="out", destination=f"s3://{bucket}/results/"),)
    spec = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), outputs=outputs)
    folders = AttemptFolders(root=root)
    return StepContext(
        ref=AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(1)),
        job_id=JobId("job"),
        spec=spec,
        folders=folders,
        storages=storages,
        mounter=CopiedInputs("there are none", local=LocalDirectories([])),
        gate=gate,
        settings=StepSettings(
            package_limit_bytes=1,
            package_limit_entries=1,
            package_limit_ratio=1,
            package_timeout=_LONG,
            mount_timeout=_LONG,
            upload_timeout=_LONG,
        ),
        mounts=plan_mounts(spec, work=folders.work, mounts=folders.mounts, own=root.parent, may_bind=False),
    )


def _memory_mib(key: str) -> float:
    """Of this process; VmHWM is the peak."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(key + ":")]
    return int(line.split()[1]) / 1024


def _child() -> None:
    endpoint, access_key, secret_key, root, bucket = json.load(sys.stdin)
    profile = StorageProfile(endpoint=endpoint, access_key=access_key, secret_key=secret_key)
    print(json.dumps(asyncio.run(_store(profile, Path(root), bucket))))


if __name__ == "__main__":
    _child()
