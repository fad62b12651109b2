"""Submit: a checked specification becomes a job, once per idempotency key."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from windlass_coordinator.core.records import ClusterKey, Fact
from windlass_coordinator.engine.secrets import unknown_secrets
from windlass_coordinator.stores.base import NewJob, Transaction
from windlass_proto import failpoints
from windlass_proto.checks import nearest
from windlass_proto.errors import Conflict, InvalidJob, Problem
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import ClusterName, JobId, TenantId
from windlass_proto.model.specs import JobSpec, task_to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request to submit, its specification already checked (`windlass_proto.checks`)."""

    tenant: TenantId
    spec: JobSpec
    idempotency_key: str
    """"" = none."""
    job_id: JobId
    """For the job, if there is none with the key yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    job_id: JobId
    already_existed: bool


def submit(tx: Transaction, request: Submission, *, now: datetime) -> Submitted:
    """Stores the job. Raises Conflict when the key was used with another specification, InvalidJob for an
    unknown cluster or secret."""
    digest = _digest(request.spec) if request.idempotency_key else ""
    if request.idempotency_key:
        earlier = tx.find_submission(request.tenant, request.idempotency_key)
        if earlier is not None:
            return _answer_again(earlier, digest, request.idempotency_key)
    job = NewJob(
        job_id=request.job_id,
        tenant=request.tenant,
        spec=request.spec,
        clusters=_find_named(tx, request),
    )
    job_key, ready_clusters = tx.add_job(job, now=now)
    if request.idempotency_key:
        tx.add_submission(
            request.tenant, request.idempotency_key, request_digest=digest, job_id=request.job_id
        )
    tx.add_facts([Fact(kind=FactKind.JOB_SUBMITTED, tenant=request.tenant, job_key=job_key)], now=now)
    tx.wakes.clusters |= ready_clusters
    tx.wakes.jobs.add(request.job_id)
    failpoints.reach("coord.submit.before_commit")
    return Submitted(job_id=request.job_id, already_existed=False)


def _digest(spec: JobSpec) -> str:
    whole = hashlib.sha256(
        repr((spec.name, spec.description, spec.priority, spec.fail_on_instance_failure)).encode()
    )
    for task in spec.tasks:
        whole.update(task_to_json(task) + b"\n")
    return whole.hexdigest()


def _answer_again(earlier: tuple[str, JobId], digest: str, key: str) -> Submitted:
    stored, job_id = earlier
    if stored != digest:
        raise Conflict(
            f"idempotency key {key!r} was used for job {job_id} with another specification: use a new key"
        )
    return Submitted(job_id=job_id, already_existed=True)


def _find_named(tx: Transaction, request: Submission) -> dict[ClusterName, ClusterKey]:
    """The clusters; raises InvalidJob for every one, and every secret, that is not there."""
    found: dict[ClusterName, ClusterKey] = {}
    problems = unknown_secrets(tx, request.tenant, request.spec.tasks)
    for task in request.spec.tasks:
        if task.cluster in found:
            continue
        key = tx.cluster_key(request.tenant, task.cluster)
        if key is None:
            problems.append(_unknown_cluster(task.name, task.cluster, tx.cluster_names(request.tenant)))
        else:
            found[task.cluster] = key
    if problems:
        raise InvalidJob(problems)
    return found


def _unknown_cluster(task: str, cluster: str, known: list[str]) -> Problem:
    close = nearest(cluster, known)
    hint = f"did you mean {close!r}?" if close else f"clusters here: {', '.join(known)}"
    return Problem(path=f"tasks.{task}.cluster", message=f"there is no cluster {cluster!r}; {hint}")
