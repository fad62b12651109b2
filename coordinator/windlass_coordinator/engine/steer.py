"""Stop, restart, delete and re-prioritise jobs, as their users ask."""

from datetime import datetime

from windlass_coordinator.core.records import Fact, JobView
from windlass_coordinator.engine.settle import end_finished_jobs, remove_job, stop_live_job
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints
from windlass_proto.errors import Conflict, NotFound
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import JobId, TenantId
from windlass_proto.model.states import JobState


def stop(tx: Transaction, tenant: TenantId, job_id: JobId, *, now: datetime) -> None:
    """No claim of this job commits after this one (invariant I10). Stopping twice is fine; a terminal job
    raises Conflict, an unknown one NotFound."""
    job = find_job(tx, tenant, job_id)
    if job.state.is_terminal:
        raise Conflict(f"job {job_id} has ended already ({job.state})")
    if job.state is JobState.STOPPING:
        return
    stop_live_job(tx, job, stop_as=JobState.STOPPED, reason="stopped by its user", now=now)
    end_finished_jobs(tx, {job.job_key}, now=now)
    failpoints.reach("coord.stop.before_commit")


def restart(tx: Transaction, tenant: TenantId, job_id: JobId, *, all_instances: bool, now: datetime) -> None:
    """A new generation of a terminal job: what has not succeeded (or all) runs again. Raises Conflict for a
    live job and for one with nothing to run again."""
    job = find_job(tx, tenant, job_id)
    if not job.state.is_terminal:
        raise Conflict(f"job {job_id} is {job.state}: stop it first, or wait until it has ended")
    if job.state is JobState.SUCCEEDED and not all_instances:
        raise Conflict(f"job {job_id} has succeeded: nothing to run again unless all instances are asked for")
    tx.wakes.clusters |= tx.restart_job(job.job_key, all_instances=all_instances, now=now)
    tx.wakes.jobs.add(job_id)
    payload: dict[str, object] = {"generation": job.generation + 1}
    _record(tx, FactKind.JOB_RESTARTED, job, payload, now=now)


def delete(tx: Transaction, tenant: TenantId, job_id: JobId, *, stop_first: bool, now: datetime) -> bool:
    """Removes a terminal job; True when it is gone. A live one raises Conflict, or with `stop_first` is
    stopped and goes when that is done."""
    job = find_job(tx, tenant, job_id)
    if not job.state.is_terminal and not stop_first:
        raise Conflict(f"job {job_id} is {job.state}: stop it first")
    if job.state.is_terminal:
        remove_job(tx, job, now=now)
        return True
    tx.mark_delete_when_done(job.job_key)
    stop(tx, tenant, job_id, now=now)
    return tx.job_view(job_id, tenant=tenant) is None


def update_priority(
    tx: Transaction, tenant: TenantId, job_id: JobId, *, priority: int, now: datetime
) -> None:
    """Counts for every claim from now on. Raises Conflict for a terminal job."""
    job = find_job(tx, tenant, job_id)
    if job.state.is_terminal:
        raise Conflict(f"job {job_id} has ended already ({job.state}): its priority means nothing any more")
    tx.set_priority(job.job_key, priority)
    tx.wakes.jobs.add(job_id)
    payload: dict[str, object] = {"from": job.priority, "to": priority}
    _record(tx, FactKind.PRIORITY_CHANGED, job, payload, now=now)


def find_job(tx: Transaction, tenant: TenantId, job_id: JobId) -> JobView:
    """The job; raises NotFound, with the same words for one that is somebody else's."""
    job = tx.job_view(job_id, tenant=tenant)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _record(
    tx: Transaction, kind: FactKind, job: JobView, payload: dict[str, object], *, now: datetime
) -> None:
    fact = Fact(kind=kind, tenant=job.tenant, job_key=job.job_key, payload=payload)
    tx.add_facts([fact], now=now)
