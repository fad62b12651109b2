"""A coordinator and its agents as users start them: processes of their own, real gRPC, a durable store."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.programs import BenchFailed, Program, await_condition, running
from windlass import Argv, BlockingClient, JobSpec, JobState, JobStatus, Profile, TaskSpec
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import DEFAULT_CLUSTER, JobId, TaskName
from windlass_proto.model.states import NodeState

_START_S = 30.0
_RUN_S = 180.0
_LOOK_EVERY_S = 0.3
TRUE = ("/bin/true",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    program: Program
    address: str
    client: BlockingClient
    directory: Path

    @property
    def profile(self) -> Profile:
        return _profile(self.directory, self.address)

    def join_token(self) -> str:
        return self.client.create_join_token(DEFAULT_CLUSTER)[0]

    def end_of(self, job_id: JobId, *, within_s: float) -> JobStatus:
        """Waits by looking at the listing now and then, which takes next to nothing from what is measured."""
        give_up_at = time.monotonic() + within_s
        while time.monotonic() < give_up_at:
            self.program.check()
            job = next(iter(self.client.list(states=ENDED)), None)
            if job is not None and job.job_id == job_id:
                return succeeded(job)
            time.sleep(_LOOK_EVERY_S)
        raise BenchFailed(f"{job_id} has not ended within {within_s:g} s; see {self.program.log}")

    def wait(self, job_id: JobId, *, within_s: float = 120) -> JobStatus:
        """Waits as users do, by a watch."""
        try:
            return succeeded(self.client.wait(job_id, timeout=timedelta(seconds=within_s)))
        except Unavailable as error:
            raise BenchFailed(f"{error}; see {self.program.log}") from error


ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


def succeeded(job: JobStatus) -> JobStatus:
    """The job. Raises BenchFailed when it ended otherwise."""
    if job.state is not JobState.SUCCEEDED:
        raise BenchFailed(f"{job.job_id} ended as {job.state}: {job.reason}")
    return job


def _profile(data: Path, address: str) -> Profile:
    return Profile(coordinator=address, token_file=data / "admin.token")


@contextmanager
def coordinator(directory: Path, *, store: str = "") -> Iterator[Coordinator]:
    """Ready to be called; `store` = URL of another database than SQLite."""
    data = directory / "coordinator"
    arguments = ["windlass_coordinator.app", "--data", str(data), "--log-level", "warning"]
    arguments += ["--store", store] if store else []
    loopback = "127.0.0.1:0"
    with running(
        "coordinator", [*arguments, "--listen", loopback, "--http", loopback], directory=directory
    ) as program:
        ready = data / "coordinator.json"
        await_condition("the coordinator starts", ready.exists, within_s=_START_S, program=program)
        address = json.loads(ready.read_text())["grpc"]
        with BlockingClient(_profile(data, address)) as client:
            yield Coordinator(program=program, address=address, client=client, directory=data)


@contextmanager
def agent(
    on: Coordinator, name: str, *, slots: int, module: str = "windlass_agent.daemon"
) -> Iterator[Program]:
    """An agent that has joined."""
    directory = on.directory.parent
    token_file = directory / f"{name}.token"
    token_file.write_text(on.join_token())
    arguments = [
        *(module, "--state", str(directory / name), "--coordinator", on.address),
        *("--join-token-file", str(token_file), "--name", name, "--slots", str(slots)),
        *("--exit-kills", "--log-level", "warning", "--isolation", "dev"),
    ]
    with running(name, arguments, directory=directory) as program:
        await_condition(
            f"{name} joins", lambda: name in ready_nodes(on.client), within_s=_START_S, program=program
        )
        yield program


def ready_nodes(client: BlockingClient) -> dict[str, str]:
    """Names of the nodes that are ready, and how well each contains what it runs."""
    return {node.name: node.containment for node in client.nodes() if node.state is NodeState.READY}


def rate_of(on: Coordinator, spec: JobSpec, *, instances: int) -> float:
    """Instances/s from the submission to the last result, both as the coordinator stored them."""
    job = on.end_of(on.client.submit(spec), within_s=_RUN_S)
    if job.ended_at is None:
        raise BenchFailed(f"{job.job_id} has no end: {job}")
    return instances / (job.ended_at - job.submitted_at).total_seconds()


def many(name: str, command: Sequence[str], *, instances: int) -> JobSpec:
    """One task of many instances."""
    task = TaskSpec(name=TaskName("work"), command=Argv(args=tuple(command)), instances=instances)
    return JobSpec(name=name, tasks=(task,))


def single_tasks(name: str, command: Sequence[str], *, tasks: int) -> JobSpec:
    """Many tasks of one instance."""
    argv = Argv(args=tuple(command))
    return JobSpec(
        name=name,
        tasks=tuple(TaskSpec(name=TaskName(f"t{number}"), command=argv) for number in range(tasks)),
    )


def chain(name: str, commands: Sequence[Sequence[str]]) -> JobSpec:
    """Tasks of one instance, each after the one before."""
    tasks = []
    for number, command in enumerate(commands):
        after = (TaskName(f"c{number - 1}"),) if number else ()
        tasks.append(TaskSpec(name=TaskName(f"c{number}"), command=Argv(args=tuple(command)), after=after))
    return JobSpec(name=name, tasks=tuple(tasks))
