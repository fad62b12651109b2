"""E: mounts that die, hang, are left behind or attacked: a real object store, FUSE mounts, commands."""

import asyncio
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support import leftovers
from tests.support.s3_server import S3Server, s3_server
from tests.support.world import World
from tests.support.world_processes import AgentProgram
from windlass_agent.mounts.fuse_daemon import find_rclone
from windlass_agent.mounts.kernel import KnownProcess, is_waited_for, why_not_mountable
from windlass_agent.mounts.mounted import read_mounted
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.states import AttemptState, JobState

DATA = InputMapping(source="oss://bucket/data/", destination="in")
AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -c"
OBJECTS = {"data/a": b"alpha", "data/sub/b": b"beta"}


async def a_store(
    world: World, *, slots: int = 2, agents: int = 1, settings: Mapping[str, str] | None = None
) -> S3Server:
    """An object store, and a world whose agents mount from it."""
    why = why_not_mountable(find_rclone())
    if why:
        raise NotRun(f"nothing can be mounted here: {why}")
    # Not in the world's own directory, where nothing may be left running.
    root = Path(world.stack.enter_context(TemporaryDirectory(dir=world.directory.parent)))
    (root / "bucket").mkdir()
    store = world.stack.enter_context(s3_server(root))
    for name, content in OBJECTS.items():
        store.put(f"bucket/{name}", content)
    mounting = {
        "WORK_INPUTS": "mount",
        "STORAGE": str(store.storage_file(world.directory / "storage.toml")),
    }
    await world.start(agents=agents, slots=slots, agent_settings=mounting | dict(settings or {}))
    return store


def daemons(agent: AgentProgram) -> list[KnownProcess]:
    """Of the attempts that are there now."""
    records = [read_mounted(agent.state / "attempts" / name) for name in agent.attempts()]
    return [record.daemon for record in records if record is not None and record.daemon is not None]


def in_bucket(store: S3Server) -> dict[str, bytes]:
    root = store.root / "bucket"
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


async def one_of_the_nodes(world: World, job: JobId) -> None:
    """It ended in an infrastructure failure that cost the user nothing, and then succeeded."""
    first, *_, last = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.FAILED, FailureKind.INFRA_PREPARE), first
    assert last.state is AttemptState.SUCCEEDED


@scenario("E01")
async def test_e01_a_command_whose_file_system_died_has_not_succeeded_whatever_it_says(world: World) -> None:
    await a_store(world)
    gate = world.gate()
    line = f"cat in/a; if [ $WINDLASS_ATTEMPT = 1 ]; then {gate.wait}; fi; cat in/sub/b; exit 0"
    job = await world.submit(world.task(line, inputs=(DATA,)))
    await world.until_started(job)
    (agent,) = world.agents
    (daemon,) = daemons(agent)
    os.kill(daemon.pid, signal.SIGKILL)
    await world.until(lambda: not daemon.lives)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    await one_of_the_nodes(world, job)
    assert await world.log(job, attempt=2) == b"alphabeta"
    await world.until(lambda: leftovers.mounts(agent.state) == [])


@scenario("E02")
async def test_e02_a_command_that_waits_for_a_hanging_file_system_is_freed(world: World) -> None:
    """It has no timeout of its own: only the agent can notice."""
    await a_store(world)
    gate = world.gate()
    line = f"if [ $WINDLASS_ATTEMPT = 1 ]; then {gate.wait}; fi; cat in/sub/b"
    job = await world.submit(world.task(line, inputs=(DATA,)))
    await world.until_started(job)
    (agent,) = world.agents
    (daemon,) = daemons(agent)
    os.kill(daemon.pid, signal.SIGSTOP)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    await one_of_the_nodes(world, job)
    assert not daemon.lives


@scenario("E02", quick=False)
async def test_e02_a_stop_ends_a_command_that_hangs_in_its_file_system(world: World) -> None:
    await a_store(world)
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; cat in/sub/b", inputs=(DATA,)))
    await world.until_started(job)
    (agent,) = world.agents
    (daemon,) = daemons(agent)
    os.kill(daemon.pid, signal.SIGSTOP)
    gate.open()
    record = read_mounted(agent.state / "attempts" / agent.attempts()[0])
    assert record is not None
    await world.until(lambda: any(map(is_waited_for, record.points.values())))
    await world.stop(job)
    assert (await world.wait(job)).state is JobState.STOPPED
    assert (await world.wait(await world.submit(world.task("cat in/a", inputs=(DATA,))))).state is (
        JobState.SUCCEEDED
    )


@scenario("E02", quick=False)
async def test_e02_a_store_that_hangs_at_the_mount_fails_the_preparation_in_time(world: World) -> None:
    """It takes connections and says nothing."""
    store = await a_store(world, agents=0)
    silent = world.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    storage = world.directory / "silent.toml"
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    storage.write_text((world.directory / "storage.toml").read_text().replace(store.endpoint, address))
    agent = await world.add_agent(settings={"WORK_INPUTS": "mount", "STORAGE": str(storage)})
    job = await world.submit(
        world.task("cat in/a", inputs=(DATA,), mount_timeout=timedelta(seconds=3), max_retries=0)
    )

    async def has_failed() -> bool:
        found = await world.attempts(job)
        return bool(found) and found[0].failure is FailureKind.INFRA_PREPARE

    await world.until(has_failed)
    assert leftovers.mounts(agent.state) == []
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


@scenario("E03")
async def test_e03_mounts_that_a_killed_agent_left_are_taken_over_or_detached(world: World) -> None:
    await a_store(world)
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; cat in/a", inputs=(DATA,)))
    await world.until_started(job)
    (agent,) = world.agents
    (daemon,) = daemons(agent)
    agent.kill()
    stale = agent.state / "attempts/999.0.1/inputs/fuse"
    stale.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(stale)], check=True)
    agent.start_again()
    await world.until_ready(agent)
    assert daemon.lives
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.log(job) == b"alpha"
    await world.until(lambda: leftovers.mounts(agent.state) == [])
    assert not daemon.lives


@scenario("E03", quick=False)
async def test_e03_an_agent_killed_between_mount_and_command_mounts_anew(world: World) -> None:
    await a_store(world, agents=0)
    storage = {"WORK_INPUTS": "mount", "STORAGE": str(world.directory / "storage.toml")}
    agent = await world.add_agent(settings=storage, failpoint="agent.handover.before")
    job = await world.submit(world.task("cat in/a", inputs=(DATA,)))
    assert await asyncio.to_thread(agent.exit_code) == -9
    assert leftovers.mounts(agent.state) != []
    agent.start_again()
    await world.until_ready(agent)
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.log(job) == b"alpha"


@scenario("E04")
async def test_e04_a_link_that_a_package_plants_in_an_inputs_place_is_refused(world: World) -> None:
    store = await a_store(world)
    outside = world.directory / "outside"
    outside.mkdir()
    store.put("bucket/p.tar.gz", _package_with_link("up", str(outside)))
    job = await world.submit(
        world.task(
            "true",
            package="oss://bucket/p.tar.gz",
            inputs=(InputMapping(source=DATA.source, destination="up/in"),),
        )
    )
    assert (await world.wait(job)).state is JobState.FAILED
    (attempt,) = await world.attempts(job)
    assert attempt.failure is FailureKind.USER_CONFIG, attempt
    assert list(outside.iterdir()) == []


@scenario("E05")
async def test_e05_forbidden_places_are_refused_at_submit_by_field(world: World) -> None:
    await world.start(agents=0)
    for place in ("/", "/etc", "/proc/1", "/var/lib/windlass-agent", "..", "a/../../b", ".", ""):
        wrong = InputMapping(source=DATA.source, destination=place)
        with pytest.raises(InvalidRequest, match=r"tasks\.t\.inputs\[0\]\.destination"):
            await world.submit(world.task(inputs=(wrong,)))
    for pair in (("in", "in"), ("in", "in/deeper"), ("in/deeper", "in"), ("in", "./in/")):
        both = tuple(InputMapping(source=DATA.source, destination=place) for place in pair)
        with pytest.raises(InvalidRequest, match=r"tasks\.t\.inputs\[[01]\]\.destination"):
            await world.submit(world.task(inputs=both))


@scenario("E06")
async def test_e06_wrong_credentials_are_the_users_mistake_and_are_told_without_the_secret(
    world: World,
) -> None:
    store = await a_store(world, agents=0)
    secret = store.profile().secret_key
    wrong = world.directory / "node-0.toml"
    wrong.write_text((world.directory / "storage.toml").read_text().replace(secret, "not-the-secret"))
    agent = await world.add_agent(settings={"WORK_INPUTS": "mount", "STORAGE": str(wrong)})
    job = await world.submit(world.task("cat in/a", inputs=(DATA,)))
    assert (await world.wait(job)).state is JobState.FAILED
    (attempt,) = await world.attempts(job)
    assert attempt.failure is FailureKind.USER_CONFIG
    assert DATA.source in attempt.reason
    assert "not-the-secret" not in attempt.reason + agent.said


@scenario("E09")
async def test_e09_what_one_attempt_mounted_is_out_of_reach_of_another_ones_user(world: World) -> None:
    """As somebody who is not root: the mount below, the key and the daemon."""
    await a_store(world, settings={"WORK_ISOLATION": "dev"})
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, inputs=(DATA,)))
    await world.until_started(job)
    (agent,) = world.agents
    (daemon,) = daemons(agent)
    victim = agent.state / "attempts" / agent.attempts()[0]
    attacks = [
        f"cat {victim}/inputs/fuse/0/a",
        f"cat {victim}/work/in/a",
        f"cat /proc/{daemon.pid}/environ",
        f"ls /proc/{daemon.pid}/root/ /proc/{daemon.pid}/fd/",
        f"kill -9 {daemon.pid}",
        f"fusermount3 -u {victim}/inputs/fuse",
    ]
    attack = "; ".join(f'{AS_NOBODY} "{one}" && echo through' for one in attacks)
    other = await world.submit(world.task(f"{attack}; true"))
    assert (await world.wait(other)).state is JobState.SUCCEEDED
    assert b"through" not in await world.log(other)
    argv = Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    assert b"test-secret" not in argv
    assert daemon.lives
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED


@scenario("E10", limit_s=1200)
async def test_e10_many_commands_with_mounts_leave_none_behind(world: World, profile: FaultProfile) -> None:
    await a_store(world, slots=3)
    count = profile.of(quick=6, full=300)
    job = await world.submit(world.task('test "$(cat in/a)" = alpha', inputs=(DATA,), instances=count))
    assert (await world.wait(job, within_s=1100)).state is JobState.SUCCEEDED
    (agent,) = world.agents
    await world.until(lambda: leftovers.mounts(agent.state) == [])
    await world.until(lambda: _rclones(agent.state) == [])


WRITES = (
    "echo x >> in/a",
    ": > in/a",
    "rm -f in/a",
    "rm -f in/sub/b",
    "mv in/a in/c",
    "mv in/sub in/other",
    "chmod 777 in/a",
    "echo x > in/new && mv -f in/new in/a",
)


@scenario("E11")
async def test_e11_an_isolated_command_cannot_change_what_is_mapped_and_makes_its_own_beside_it(
    world: World,
) -> None:
    if not shutil.which("bwrap"):
        raise NotRun("no bubblewrap")
    let_others_pass(world.directory)
    store = await a_store(world, settings={"WORK_ISOLATION": "standard"})
    attacks = "; ".join(f"({attack}) && echo through" for attack in WRITES)
    own = "echo y > in/sub/mine && cat in/sub/mine && rm in/sub/mine"
    job = await world.submit(world.task(f"{attacks}; cat in/a in/sub/b; {own}", inputs=(DATA,)))
    assert (await world.wait(job)).state is JobState.SUCCEEDED, await world.attempts(job)
    assert await world.log(job) == b"alphabetay\n"
    assert in_bucket(store) == OBJECTS


@scenario("E11")
async def test_e11_what_root_changes_in_its_view_never_reaches_the_bucket(world: World) -> None:
    store = await a_store(world, settings={"WORK_ISOLATION": "dev"})
    attacks = "; ".join(f"{AS_NOBODY} '{attack}' && echo through" for attack in WRITES)
    as_nobody = await world.submit(world.task(f"{attacks}; cat in/a in/sub/b", inputs=(DATA,)))
    assert (await world.wait(as_nobody)).state is JobState.SUCCEEDED
    assert await world.log(as_nobody) == b"alphabeta"
    as_root = await world.submit(
        world.task("echo x > in/a; rm in/sub/b; mkdir in/d; echo y > in/d/e; cat in/a", inputs=(DATA,))
    )
    assert (await world.wait(as_root)).state is JobState.SUCCEEDED
    assert await world.log(as_root) == b"x\n"
    assert in_bucket(store) == OBJECTS


@scenario("E12")
async def test_e12_what_looks_like_options_is_data(world: World) -> None:
    store = await a_store(world)
    odd = "data/with space,rw,allow_root/-o suid=1/$(touch x);'q'"
    store.put(f"bucket/{odd}/f", "found")
    taken = InputMapping(source=f"oss://bucket/{odd}/", destination="in dir,upperdir=-x")
    job = await world.submit(world.task("cat 'in dir,upperdir=-x/f'; ls", inputs=(taken,)))
    assert (await world.wait(job)).state is JobState.SUCCEEDED, await world.attempts(job)
    assert await world.log(job) == b"foundin dir,upperdir=-x\n"
    for options in ("vers=4 -o suid", "rw,dev", "suid", "vers=4\nsuid", "-o dev", "nosuid,exec=/x"):
        wrong = InputMapping(source="nfs://nas:/data", destination="in", options=options)
        with pytest.raises(InvalidRequest, match=r"tasks\.t\.inputs\[0\]\.options"):
            await world.submit(world.task(inputs=(wrong,)))
    refused = InputMapping(source="nfs://nas:/data", destination="in", options="vers=4")
    job = await world.submit(world.task(inputs=(refused,)))
    assert (await world.wait(job)).state is JobState.FAILED
    (attempt,) = await world.attempts(job)
    assert (attempt.failure, "network.hosts" in attempt.reason) == (FailureKind.USER_CONFIG, True)


def let_others_pass(directory: Path) -> None:
    """Isolated commands are other users, and pytest's directories are its own user's alone."""
    for place in (directory, *directory.parents):
        if not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)


def _package_with_link(name: str, target: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)
    return packed.getvalue()


def _rclones(directory: Path) -> list[int]:
    found = leftovers.processes(directory, mark="")
    return [process.pid for process in found if "rclone" in process.name()]
