"""Users: they submit, lose replies, try again, and change their minds."""

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

from tests.simulation.ledger import Ledger, Submitted
from tests.simulation.messages import OperateCall, SteerCall, SubmitCall
from tests.simulation.network import Direction, Network, Path
from tests.simulation.scripts import CommandScript
from tests.simulation.world import Clock, Process, SimulationFailure, World
from windlass_proto.errors import Conflict, NotFound, Unavailable, WindlassError
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId, NodeId, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, DisconnectPolicy, JobSpec, OutputMapping, TaskSpec

_TIMEOUT_S = 3.0
_PAUSE_S = (0.2, 2.0)
_KEEP_GOING = DisconnectPolicy.KEEP_GOING
_VERBS = ("stop", "stop", "restart", "restart", "delete", "priority")


class User(Process):
    """Submits all jobs of a run and steers some of them."""

    def __init__(self, world: World, network: Network, ledger: Ledger) -> None:
        super().__init__(world, "user", Clock())
        self._network, self._ledger = network, ledger
        self.path = Path(Direction(), Direction())
        self.open_calls = 0
        """Submissions that are not answered yet."""
        self.is_immune = True
        self.start()

    def submit_later(self, delay_s: float, job: Submitted) -> None:
        self.open_calls += 1
        self._ledger.jobs[job.key] = job
        self.after(delay_s, lambda: self._submit(job))

    def steer_later(self, delay_s: float, job: Submitted, verb: str, number: int) -> None:
        self.after(delay_s, lambda: self._steer(job, verb, number))

    def submit_again(self, job: Submitted) -> None:
        """The reply was lost, or so it seems to the user."""
        if not job.is_lost:
            self.open_calls += 1
            self._submit(job)

    def _submit(self, job: Submitted) -> None:
        sent_at = self.world.now

        def done(job_id: JobId) -> None:
            self.open_calls -= 1
            self.world.note("submitted", job.key, job_id)
            if job.job_id is not None and job.job_id != job_id and not job.is_lost:
                raise SimulationFailure(f"P1: {job.key} is {job.job_id} and {job_id}")
            if job.job_id != job_id:
                job.job_id, job.acknowledged_at = job_id, self.world.now
                # The answer was perhaps on its way when what it tells of was restored away.
                job.is_lost = sent_at <= self._ledger.restored_at

        def failed(error: WindlassError) -> None:
            assert isinstance(error, Unavailable), f"a submit was refused: {error}"
            self.after(self.world.rng.uniform(*_PAUSE_S), lambda: self._submit(job))

        self._call("Submit", SubmitCall(spec=job.spec, idempotency_key=job.key), done, failed)

    def _steer(self, job: Submitted, verb: str, number: int) -> None:
        if job.job_id is None:
            return
        job.steered.add(verb)
        job_id = job.job_id

        def done(_: Any) -> None:
            self.world.note("steered", verb, job_id)

        def failed(error: WindlassError) -> None:
            # A lost reply and a second try: the first may have done it.
            if isinstance(error, Conflict | NotFound):
                self.world.note("refused", verb, job_id, type(error).__name__)
            elif self.world.rng.random() < 0.7:
                self.after(self.world.rng.uniform(*_PAUSE_S), lambda: self._steer(job, verb, number))

        self._call("Steer", SteerCall(job_id=job_id, verb=verb, number=number), done, failed)

    # Nodes

    def operate(self, node_id: NodeId, verb: str, within_s: float | None = None) -> None:
        """Tried until it is answered, as a person would."""

        def failed(error: WindlassError) -> None:
            if isinstance(error, Unavailable):
                self.after(self.world.rng.uniform(*_PAUSE_S), lambda: self.operate(node_id, verb, within_s))

        def done(_: Any) -> None:
            self.world.note("operated", verb, node_id)

        self._call("Operate", OperateCall(node_id=node_id, verb=verb, within_s=within_s), done, failed)

    def _call(
        self,
        method: str,
        request: Any,
        on_reply: Callable[[Any], None],
        on_error: Callable[[WindlassError], None],
    ) -> None:
        self._network.call(
            self, self.path, method, request, timeout_s=_TIMEOUT_S, on_reply=on_reply, on_error=on_error
        )


def a_random_job(rng: Random, number: int) -> JobSpec:
    tasks: list[TaskSpec] = []
    for position in range(rng.choice((1, 1, 2, 3, 4))):
        parents = [task.name for task in tasks if rng.random() < 0.5]
        tasks.append(_a_random_task(rng, f"task{position}", parents))
    return JobSpec(
        name=f"job{number}",
        tasks=tuple(tasks),
        priority=rng.choice((0, 0, 5)),
        fail_on_instance_failure=rng.random() < 0.5,
    )


def _a_random_task(rng: Random, name: str, parents: list[TaskName]) -> TaskSpec:
    instances = rng.choice((1, 1, 2, 3, 5, 9))
    bad = tuple(index for index in range(instances) if rng.random() < 0.25)
    retries = rng.choice((0, 0, 1, 2, 3))
    until = rng.choice((0, min(1, retries), retries))
    disconnect = rng.choice((_KEEP_GOING, _KEEP_GOING, *DisconnectPolicy))
    script: dict[str, Any] = {
        "run_s": rng.choice((0.02, 0.05, 0.5, 2.0, 8.0, 20.0)),
        "code": rng.choice((1, 2, 126)),
        "bad": bad,
        "until": until,
        "ignores_term": rng.random() < 0.2,
        "out_bytes": rng.choice((0, 0, 30, 200, 700)),
        "may_overlap": disconnect is _KEEP_GOING,
    }
    more: dict[str, Any] = {}
    kind = rng.random()
    if kind < 0.12:
        script["hangs"] = True
        script["run_s"] = min(script["run_s"], 2.0)
    elif kind < 0.3:
        more["package"] = "oss://bucket/package.tar.gz"
        script["prepare_s"] = rng.choice((0.1, 1.0, 4.0))
        if rng.random() < 0.5:
            script["prepare_fails"] = rng.choice((FailureKind.USER_CONFIG, FailureKind.INFRA_PREPARE)).value
            if script["prepare_fails"] == FailureKind.INFRA_PREPARE.value:
                script["until"] = rng.choice((1, 2))
    elif kind < 0.5:
        more["outputs"] = (OutputMapping(source="out/", destination="oss://bucket/out/"),)
        script["upload_s"] = rng.choice((0.1, 1.0, 4.0))
        script["upload_fails"] = rng.random() < 0.1
    if script.get("hangs"):
        more["timeout"] = timedelta(seconds=script["run_s"] * 3 + 2)
    return TaskSpec(
        name=TaskName(name),
        command=Argv(args=CommandScript(**script).argv()),
        after=tuple(parents),
        instances=instances,
        max_retries=retries,
        disconnect=disconnect,
        # The default of no_overlap is longer than a run.
        run_for=None if disconnect is _KEEP_GOING else timedelta(seconds=rng.choice((0, 6))),
        resources=Resources(
            slots=rng.choice((1, 1, 1, 2)), cpu=rng.choice((0.0, 0.5)), gpus=rng.choice((0, 0, 0, 1, 2))
        ),
        **more,
    )


def make_work(user: User, rng: Random, *, chaos_s: float) -> None:
    """Jobs over the first part of the run, and what their users do with them."""
    for number in range(rng.choice((1, 2, 3, 5))):
        job = Submitted(a_random_job(rng, number), key=f"key-{number}")
        submitted_s = rng.uniform(0.0, chaos_s * 0.6)
        user.submit_later(submitted_s, job)
        if rng.random() < 0.3:
            user.after(rng.uniform(submitted_s, chaos_s), lambda job=job: user.submit_again(job))
        if rng.random() < 0.45:
            for _ in range(rng.choice((1, 2, 4))):
                user.steer_later(
                    rng.uniform(submitted_s, chaos_s * 1.2),
                    job,
                    rng.choice(_VERBS),
                    rng.choice((0, 1)),
                )
