"""What can be said when a run is over: every byte of every log, and the order of all facts."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.disk import produced_bytes
from tests.simulation.ledger import Ledger
from tests.simulation.world import SimulationFailure
from windlass_coordinator.logstore.base import Gap, LogStore, StreamKey
from windlass_coordinator.stores.sql.rows import OUTPUT_IS_GIVEN_UP
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.states import LogStream

Rows = Callable[..., Sequence[tuple[Any, ...]]]

_ATTEMPTS = f"""
SELECT j.job_id, a.task_key, a.idx, a.attempt, a.fence, a.state, a.stdout_end, a.stderr_end, n.state,
  {OUTPUT_IS_GIVEN_UP}
FROM attempts a JOIN tasks t ON t.task_key = a.task_key JOIN jobs j ON j.job_key = t.job_key
JOIN nodes n ON n.node_key = a.node_key
WHERE j.deleted_at IS NULL AND a.state IN ('SUCCEEDED', 'FAILED', 'STOPPED', 'LOST')"""

_LETTERS = {
    FactKind.JOB_SUBMITTED: "s",
    FactKind.JOB_STARTED: "r",
    FactKind.JOB_STOPPING: "x",
    FactKind.JOB_SUCCEEDED: "e",
    FactKind.JOB_FAILED: "e",
    FactKind.JOB_STOPPED: "e",
    FactKind.JOB_RESTARTED: "g",
    FactKind.JOB_DELETED: "d",
}
_LIFE = re.compile("s(r?x?eg)*r?x?(ed?)?")
"""Submitted; then per generation: started, stopping, ended; deleted at the very end."""


def check_logs(rows: Rows, ledger: Ledger, logs: LogStore) -> None:
    """I13 and L5: what is stored is what was written, whole or with declared gaps."""
    for job_id, task_key, index, attempt, fence, state, *ends, node_state, is_given_up in rows(_ATTEMPTS):
        ref = AttemptRef(task_key=TaskKey(task_key), index=index, attempt=attempt, fence=Fence(fence))
        for stream, end in zip(LogStream, ends, strict=True):
            key = StreamKey(job_id=job_id, task_key=ref.task_key, index=index, attempt=attempt, stream=stream)
            stored = _check_stream(logs, key, ref)
            acknowledged = ledger.acknowledged.get((ref, stream), 0)
            if stored < acknowledged:
                raise SimulationFailure(f"I13: {ref} {stream}: {acknowledged} acknowledged, {stored} stored")
            if state == "LOST" or end is None or ledger.restored_at >= 0:
                continue
            if stored < end and not is_given_up:
                raise SimulationFailure(
                    f"L5: {ref} {stream}: {stored} of {end} bytes, and its node is {node_state}"
                )
            if stored < end and node_state != "GONE" and ref not in ledger.torn:
                raise SimulationFailure(f"L5: {ref} {stream}: given up at {stored} of {end} bytes")


def _check_stream(logs: LogStore, key: StreamKey, ref: AttemptRef) -> int:
    end, offset = logs.durable_end(key), 0
    while offset < end:
        found = logs.read(key, offset=offset, limit=4096)
        if isinstance(found, Gap):
            offset = found.end
            continue
        if not found.data:
            raise SimulationFailure(f"I13: {ref} {key.stream}: nothing at {offset}, its end is {end}")
        if found.data != produced_bytes(ref, key.stream, offset, len(found.data)):
            raise SimulationFailure(f"I13: {ref} {key.stream}: other bytes at {offset} than were written")
        offset += len(found.data)
    return end


def check_facts(rows: Rows) -> None:
    """I19: each change of a job once, in order."""
    lives: dict[int, str] = defaultdict(str)
    for job_key, kind in rows("SELECT job_key, kind FROM facts WHERE job_key IS NOT NULL ORDER BY seq"):
        lives[job_key] += _LETTERS.get(FactKind(kind), "")
    states = dict(rows("SELECT job_key, generation FROM jobs WHERE job_id NOT LIKE 'restored-%'"))
    for job_key, generation in states.items():
        life = lives[job_key]
        if not _LIFE.fullmatch(life) or life.count("g") != generation - 1:
            raise SimulationFailure(f"I19: job {job_key} of generation {generation} has the facts {life!r}")
