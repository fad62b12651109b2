"""Each phase of an attempt has a clock of its own; a step that hangs holds nobody up."""

import asyncio
import io
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from windlass_agent.containers.base import EngineSetting
from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.core.output_gate import Grant, Wish
from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.mounts import Storages
from windlass_agent.mounts.base import ObjectIdentity, Storage
from windlass_agent.mounts.copied_inputs import CopiedInputs
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.runner.package_cache import PackageCache
from windlass_agent.runner.step_runner import FinalRecord, StepRunner
from windlass_agent.runner.steps import threads
from windlass_agent.runner.steps.base import StepContext, StepFailure, StepSettings
from windlass_agent.runner.steps.clock import in_words
from windlass_agent.runner.steps.container import ContainerStep
from windlass_agent.runner.steps.phase_record import PhaseRecord
from windlass_agent.runner.steps.secrets import SecretsStep
from windlass_agent.runner.task_template import TaskTemplate, TaskTemplates
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.secrets import OpenedSecret
from windlass_proto.model.specs import Argv, InputMapping, OutputMapping, TaskSpec, task_to_json
from windlass_proto.model.storage import ObjectLocation, StorageProfiles

NO_ENGINE = EngineSetting(engine="none", socket="", options=())
SOON = timedelta(seconds=1)
LATER = timedelta(hours=1)
REF = AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(1))


class NoSecrets:
    """Tasks here name none."""

    async def fetch(self, ref: AttemptRef) -> Sequence[OpenedSecret]:
        raise AssertionError(f"nothing is to be fetched for {ref}")


class OpenGate:
    """The node's lease holds."""

    async def held(self) -> None:
        return

    def check(self) -> None:
        return

    async def commit(self, wish: Wish) -> Grant:
        raise AssertionError(f"nothing here gets as far as {wish}")


class HungStore:
    """An object store behind a network that has stopped: calls come back when the test says so."""

    def __init__(self) -> None:
        self.released = Event()
        self.called = Event()

    def for_scheme(self, scheme: str, *, storage: str = "") -> Storage:
        assert scheme == "oss"
        return self

    def fetch_directory(self, source: ObjectLocation, directory: Path, *, cancelled: Event) -> None:
        self._hang()

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        self._hang()

    @property
    def outputs(self) -> "HungStore":
        """It hangs at the first step of an upload."""
        return self

    def send_all(self, *_: object, **__: object) -> None:
        self._hang()

    def identity_of(self, source: ObjectLocation) -> ObjectIdentity:
        return ObjectIdentity(name="0", size_bytes=100)

    def _hang(self) -> None:
        self.called.set()
        assert self.released.wait(60)


class GoodStore(HungStore):
    """Answers at once; its package holds one file."""

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("hello")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"hi"))

    def _hang(self) -> None:
        """It does not."""


@pytest.fixture
def hung() -> Iterator[HungStore]:
    store = HungStore()
    yield store
    store.released.set()


def a_template(**task: Any) -> TaskTemplate:
    spec = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), **task)
    node = NodeVariables(
        node_id="n",
        node_name="n",
        path="/bin",
        home="/",
        user="u",
        lang="C",
        tmpdir="/tmp",
        region="",
        oss_host="",
        worker_id="w",
    )
    batch = AssignmentBatch(
        task_key=TaskKey(1),
        job_id=JobId("j"),
        task_name=TaskName("t"),
        instance_count=1,
        spec=task_to_json(spec),
        index=(0,),
        attempt=(1,),
        fence=(1,),
        cluster=ClusterName("c"),
    )
    return TaskTemplates(node, kill_grace=timedelta(seconds=1)).of(batch)


def a_runner(
    store: HungStore, root: Path, *, clock: Callable[[], float] = boot_seconds, **limits: timedelta
) -> StepRunner:
    given = {"package_timeout": LATER, "mount_timeout": LATER, "upload_timeout": LATER} | limits
    settings = StepSettings(
        package_limit_bytes=1 << 20, package_limit_entries=100, package_limit_ratio=100, **given
    )
    return StepRunner(
        store,
        settings,
        mounter=CopiedInputs("the store is none that can be mounted", local=LocalDirectories([])),
        containers=ContainerStep(NodeContainers(NO_ENGINE, home=root / "containers", place="p"), pids_max=0),
        gate=OpenGate(),
        packages=PackageCache(root / "packages", limit_bytes=0),
        secrets=SecretsStep(NoSecrets(), Storages(StorageProfiles(by_scheme={}), threads=1)),
        directory_of=lambda _ref: root / "attempt",
        may_bind=False,
        clock=clock,
        boot_id="this boot",
    )


def a_context(runner: StepRunner, template: TaskTemplate) -> StepContext:
    context = runner.context(REF, template)
    assert isinstance(context, StepContext)
    return context


@asynccontextmanager
async def a_loop_that_turns() -> AsyncIterator[None]:
    """Fails when something blocks the event loop for long."""
    longest_s = 0.0

    async def turn() -> None:
        nonlocal longest_s
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - began_s)

    async with asyncio.TaskGroup() as group:
        turning = group.create_task(turn())
        yield
        turning.cancel()
    assert longest_s < 5


async def prepared(runner: StepRunner, template: TaskTemplate) -> CommandPlan | StepFailure:
    return await runner.prepare(a_context(runner, template), template)


PACKAGE = {"package": "oss://b/p.tar.gz"}
INPUT = {"inputs": (InputMapping(source="oss://b/in/", destination="in"),)}
OUTPUT = {"outputs": (OutputMapping(source="out", destination="oss://b/out/"),)}


@pytest.mark.parametrize(
    ("task", "setting", "phase"),
    [(PACKAGE, "package_timeout", "package"), (INPUT, "mount_timeout", "mount")],
)
async def test_a_phase_that_hangs_fails_with_its_name_its_limit_and_its_setting(
    task: dict[str, Any], setting: str, phase: str, hung: HungStore, tmp_path: Path
) -> None:
    runner = a_runner(hung, tmp_path, **{setting: SOON})
    async with a_loop_that_turns():
        outcome = await prepared(runner, a_template(**task))
    assert outcome == StepFailure(
        kind=FailureKind.INFRA_PREPARE, reason=f"{phase}: not done within 1 s ({setting})"
    )


async def test_the_tasks_own_limit_comes_before_the_nodes(hung: HungStore, tmp_path: Path) -> None:
    outcome = await prepared(a_runner(hung, tmp_path), a_template(**PACKAGE, package_timeout=SOON))
    assert isinstance(outcome, StepFailure)
    assert outcome.reason == "package: not done within 1 s (package_timeout)"


async def test_an_upload_that_hangs_is_a_failure_that_is_written_down(
    hung: HungStore, tmp_path: Path
) -> None:
    runner, template = a_runner(hung, tmp_path, upload_timeout=SOON), a_template(**OUTPUT)
    final = await runner.finalize(a_context(runner, template), with_directories=True)
    assert final == FinalRecord(failure="upload: not done within 1 s (upload_timeout)")
    again = await runner.finalize(a_context(runner, template), with_directories=True)
    assert again == final


def a_record(root: Path, *, now_s: float, boot_id: str = "this boot") -> PhaseRecord:
    return PhaseRecord(root, boot_id=boot_id, now_s=now_s)


def test_what_an_interrupted_phase_has_used_is_known_to_the_next_agent(tmp_path: Path) -> None:
    a_record(tmp_path, now_s=100).lasts("mount", since_s=100)
    second = a_record(tmp_path, now_s=150)
    second.lasts("package", since_s=150)  # once more, as all that comes before it
    third = a_record(tmp_path, now_s=157)
    assert (third.used_s("package"), third.used_s("mount")) == (7, 50)
    third.ended("package")
    fourth = a_record(tmp_path, now_s=1_000)
    assert (fourth.used_s("package"), fourth.used_s("mount")) == (0, 50)


def test_seconds_of_another_boot_are_not_counted(tmp_path: Path) -> None:
    a_record(tmp_path, now_s=100).lasts("upload", since_s=100)
    a_record(tmp_path, now_s=130).lasts("upload", since_s=130)
    assert a_record(tmp_path, now_s=5, boot_id="the next one").used_s("upload") == 30


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"phases": 1}', b'{"boot_id": "", "phases": {"a": {}}}'])
def test_a_damaged_record_is_none(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "phases.json").write_bytes(damaged)
    assert a_record(tmp_path, now_s=1).used_s("a") == 0


@pytest.mark.parametrize(
    ("task", "setting", "phase"),
    [(PACKAGE, "package_timeout", "package"), (INPUT, "mount_timeout", "mount")],
)
async def test_the_next_agent_goes_on_with_the_same_clock(
    task: dict[str, Any], setting: str, phase: str, hung: HungStore, tmp_path: Path
) -> None:
    template = a_template(**task)
    preparing = asyncio.ensure_future(prepared(a_runner(hung, tmp_path), template))
    async with asyncio.timeout(30):
        while not (tmp_path / "attempt/phases.json").exists():
            await asyncio.sleep(0.01)
    preparing.cancel()

    hung.called.clear()
    an_hour_later = a_runner(hung, tmp_path, clock=lambda: boot_seconds() + LATER.total_seconds())
    async with asyncio.timeout(30):
        outcome = await prepared(an_hour_later, template)
    assert outcome == StepFailure(
        kind=FailureKind.INFRA_PREPARE, reason=f"{phase}: not done within 1 h ({setting})"
    )


async def test_a_step_that_hangs_does_not_outlive_a_stop(hung: HungStore, tmp_path: Path) -> None:
    runner, template = a_runner(hung, tmp_path), a_template(**PACKAGE)
    context = a_context(runner, template)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        preparing = group.create_task(runner.prepare(context, template))
        await asyncio.to_thread(hung.called.wait, 30)
        context.cancelled.set()
    assert isinstance(preparing.result(), StepFailure)


async def test_threads_that_hang_are_counted_until_they_come_back(hung: HungStore, tmp_path: Path) -> None:
    before = threads.left_behind()
    await prepared(a_runner(hung, tmp_path, package_timeout=SOON), a_template(**PACKAGE))
    assert threads.left_behind() == before + 1
    hung.released.set()
    async with asyncio.timeout(30):
        while threads.left_behind() > before:
            await asyncio.sleep(0.01)


async def test_many_steps_that_hang_leave_the_loops_own_threads_free(hung: HungStore, tmp_path: Path) -> None:
    runner, template = a_runner(hung, tmp_path, package_timeout=timedelta(seconds=1)), a_template(**PACKAGE)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(prepared(runner, template))
        await asyncio.to_thread(hung.called.wait, 30)
        assert await asyncio.to_thread(lambda: "free") == "free"


async def test_phases_in_time_lead_to_a_plan(tmp_path: Path) -> None:
    outcome = await prepared(a_runner(GoodStore(), tmp_path), a_template(**PACKAGE, **INPUT))
    assert isinstance(outcome, CommandPlan)
    assert (tmp_path / "attempt/work/hello").read_bytes() == b"hi"


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(minutes=10), "10 min"),
        (timedelta(hours=6), "6 h"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(days=2), "2 d"),
        (timedelta(milliseconds=300), "0.3 s"),
    ],
)
def test_limits_are_told_in_their_largest_unit(duration: timedelta, words: str) -> None:
    assert in_words(duration) == words
