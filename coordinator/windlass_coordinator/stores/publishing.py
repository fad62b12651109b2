"""What a store must know of published outputs; a part of `base.Transaction`."""

from typing import Protocol

from windlass_coordinator.core.publishing import Publication, Standing
from windlass_proto.model.ids import AttemptRef, TaskKey


class PublishRecords(Protocol):
    """One record per instance: the attempt that may publish, or has published, its outputs."""

    def standing(self, ref: AttemptRef) -> Standing | None:
        """Of the attempt with this number, whatever its fence; stands still until the transaction ends."""

    def published(self, task_key: TaskKey, index: int) -> Publication | None: ...

    def publish(self, publication: Publication) -> None:
        """In place of what was recorded for the instance."""
