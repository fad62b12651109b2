"""The SDK against a real coordinator, also while that is killed and started again."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from windlass import environment
from windlass.blocking import BlockingClient
from windlass.cli.invocation import find_job
from windlass.client import Client
from windlass.laptop import Laptop, Ports, choose_ports
from windlass.profile import Profile
from windlass_proto.errors import Conflict, Denied, InvalidJob, InvalidRequest, NotFound, Unavailable
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import JobSpec, ShellLine, TaskSpec
from windlass_proto.model.states import JobState, LogState

READY_WITHIN_S = 60


class CoordinatorProgram:
    """A coordinator process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.laptop = Laptop(folder)
        self.laptop.prepare()
        self._ports = choose_ports(Ports(), before=Ports())
        self.laptop.write_profiles(self._ports)

    def start(self) -> None:
        with (self.laptop.logs / "coordinator.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.laptop.coordinator_command(self._ports),
                env=environment.for_children(),
                stdout=log,
                stderr=log,
            )
        give_up_at = time.monotonic() + READY_WITHIN_S
        while self.laptop.coordinator_pid() != self._process.pid:
            assert self._process.poll() is None, "the coordinator has ended"
            assert time.monotonic() < give_up_at, "the coordinator does not get ready"
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(READY_WITHIN_S)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(READY_WITHIN_S)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProgram]:
    program = CoordinatorProgram(tmp_path_factory.mktemp("coordinator"))
    program.start()
    try:
        yield program
    finally:
        program.end()


@pytest.fixture
def profile(coordinator: CoordinatorProgram) -> Profile:
    return coordinator.laptop.profile()


def a_job(name: str = "job", *, instances: int = 1) -> JobSpec:
    task = TaskSpec(name=TaskName("task"), command=ShellLine(line="true"), instances=instances)
    return JobSpec(name=name, tasks=(task,))


async def test_what_is_submitted_comes_back_as_it_was(profile: Profile) -> None:
    async with Client(profile) as client:
        job_id = await client.submit(a_job("as-it-was", instances=3))
        assert await client.get_spec(job_id) == a_job("as-it-was", instances=3)
        status = await client.get(job_id)
        assert (status.name, status.state, status.tasks[0].counts.ready) == ("as-it-was", JobState.WAITING, 3)


async def test_the_same_key_makes_one_job_and_no_key_makes_one_each(profile: Profile) -> None:
    async with Client(profile) as client:
        first = await client.submit(a_job(), idempotency_key="mine")
        assert await client.submit(a_job(), idempotency_key="mine") == first
        with pytest.raises(Conflict, match="key"):
            await client.submit(a_job("another"), idempotency_key="mine")
        assert len({await client.submit(a_job()), await client.submit(a_job()), first}) == 3


async def test_a_listing_goes_through_all_pages_newest_first(profile: Profile) -> None:
    async with Client(profile) as client:
        made = [await client.submit(a_job(f"paged-{number}")) for number in range(5)]
        listed = [job.job_id async for job in client.list(name_contains="paged-", page_size=2)]
        assert listed == made[::-1]


async def test_a_job_is_stopped_waited_for_and_deleted(profile: Profile) -> None:
    async with Client(profile) as client:
        job_id = await client.submit(a_job())
        assert (await client.set_priority(job_id, 9)).priority == 9
        await client.stop(job_id)
        assert (await client.wait(job_id)).state is JobState.STOPPED
        assert await client.delete(job_id)
        with pytest.raises(NotFound, match=job_id):
            await client.get(job_id)


async def test_a_watch_shows_each_change_and_ends_with_the_job(profile: Profile) -> None:
    async with Client(profile) as client:
        job_id = await client.submit(a_job())
        seen: list[JobState] = []
        async with aclosing(client.watch(job_id)) as statuses:
            async for status in statuses:
                seen.append(status.state)
                if len(seen) == 1:
                    await client.stop(job_id)
        assert (seen[0], seen[-1]) == (JobState.WAITING, JobState.STOPPED)


async def test_errors_are_ours_with_all_problems_of_a_job(profile: Profile) -> None:
    async with Client(profile) as client:
        with pytest.raises(InvalidJob) as caught:
            await client.submit(a_job(instances=0))
        assert [str(problem) for problem in caught.value.problems] == [
            "tasks.task.instances: must be >= 1 (is 0)"
        ]
        with pytest.raises(NotFound, match="job-0000"):
            await client.stop(JobId("job-" + "0" * 32))
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            await client.submit(a_job(instances=2**80))
        job_id = await client.submit(a_job())
        with pytest.raises(Conflict):
            await client.restart(job_id)
        with pytest.raises(Conflict):
            await client.delete(job_id)


async def test_numbers_that_no_message_can_hold_are_refused_in_our_words(profile: Profile) -> None:
    async with Client(profile) as client:
        job_id = await client.submit(a_job())
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            await client.set_priority(job_id, 2**70)
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            [chunk async for chunk in client.read_log(job_id, "task", -1)]
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            [one async for one in client.instances(job_id, index=2**70)]


async def test_without_the_token_nothing_is_shown(profile: Profile) -> None:
    async with Client(Profile(coordinator=profile.coordinator)) as stranger:
        with pytest.raises(Denied):
            await stranger.get(JobId("job-" + "0" * 32))


async def test_the_output_of_what_never_ran_is_empty_and_open(profile: Profile) -> None:
    async with Client(profile) as client:
        job_id = await client.submit(a_job())
        chunks = [chunk async for chunk in client.read_log(job_id, "task")]
        assert [(chunk.data, chunk.state) for chunk in chunks] == [(b"", LogState.STREAMING)]
        with pytest.raises(NotFound, match="task/7"):
            [chunk async for chunk in client.read_log(job_id, "task", 7)]


async def test_short_names_of_jobs(profile: Profile) -> None:
    async with Client(profile) as client:
        await client.submit(a_job("another"))
        job_id = await client.submit(a_job("short"))
        assert [
            await find_job(client, name) for name in ("-", "last", job_id, job_id[:20], job_id[4:20])
        ] == [job_id] * 5
        with pytest.raises(InvalidRequest, match="fits several jobs"):
            await find_job(client, "job-")
        with pytest.raises(InvalidRequest, match="is no job id"):
            await find_job(client, "my job")


async def test_calls_and_watches_outlive_a_coordinator_that_is_killed(
    coordinator: CoordinatorProgram,
) -> None:
    async with Client(coordinator.laptop.profile(), patience=timedelta(seconds=READY_WITHIN_S)) as client:
        job_id = await client.submit(a_job("survivor"))
        seen: asyncio.Queue[JobState] = asyncio.Queue()

        async def watch() -> None:
            async with aclosing(client.watch(job_id)) as statuses:
                async for status in statuses:
                    seen.put_nowait(status.state)

        async with asyncio.timeout(READY_WITHIN_S), asyncio.TaskGroup() as group:
            group.create_task(watch())
            assert await seen.get() is JobState.WAITING
            await asyncio.to_thread(coordinator.kill)
            submitted = group.create_task(client.submit(a_job("while-down")))
            await asyncio.to_thread(coordinator.start)
            second = await submitted
            await client.stop(job_id)
            assert await seen.get() in (JobState.STOPPING, JobState.STOPPED)
        listed = [job.job_id async for job in client.list(name_contains="while-down")]
        assert listed == [second]


async def test_where_no_coordinator_is_the_message_says_what_to_do() -> None:
    async with Client(Profile(coordinator="127.0.0.1:9"), patience=timedelta(milliseconds=200)) as client:
        with pytest.raises(Unavailable, match="windlass up"):
            await client.get(JobId("job-" + "0" * 32))


def test_the_blocking_client_does_the_same_without_an_event_loop(profile: Profile) -> None:
    with BlockingClient.open(profile) as client:
        job_id = client.submit(a_job("blocking"))
        with pytest.raises(Unavailable, match="within 100ms; it goes on"):
            client.wait(job_id, timeout=timedelta(milliseconds=100))
        client.stop(job_id)
        assert client.wait(job_id).state is JobState.STOPPED
        assert [job.job_id for job in client.list(name_contains="blocking")] == [job_id]
        assert [status.state for status in client.watch(job_id)] == [JobState.STOPPED]
        first = next(client.list())
        assert first.job_id == job_id
        assert client.clusters()[0].name == "default"
    client.close()
