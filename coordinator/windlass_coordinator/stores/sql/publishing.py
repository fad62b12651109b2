"""Rows of published outputs as values, for both databases."""

from typing import Any

from windlass_coordinator.core.publishing import Publication, Standing
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState

STANDING = """
SELECT a.state, a.fence, a.node_key, a.epoch, a.detached, i.attempt, i.fence
FROM attempts a JOIN instances i ON i.task_key = a.task_key AND i.idx = a.idx"""

PUBLISHED = "SELECT attempt, fence, manifest_digest, files, bytes FROM published"


# A row is untyped: the driver knows no column types.
def standing_of(row: Any) -> Standing:
    return Standing(
        state=AttemptState(row[0]),
        fence=Fence(row[1]),
        node_key=NodeKey(row[2]),
        epoch=row[3],
        is_detached=bool(row[4]),
        newest_attempt=row[5],
        newest_fence=row[6],
    )


def publication_of(row: Any, task_key: TaskKey, index: int) -> Publication:
    ref = AttemptRef(task_key=task_key, index=index, attempt=row[0], fence=Fence(row[1]))
    return Publication(ref=ref, manifest_digest=row[2], files=row[3], size_bytes=row[4])


def publication_row(publication: Publication) -> tuple[int, int, int, int, str, int, int]:
    ref = publication.ref
    return (
        ref.task_key,
        ref.index,
        ref.attempt,
        ref.fence,
        publication.manifest_digest,
        publication.files,
        publication.size_bytes,
    )
