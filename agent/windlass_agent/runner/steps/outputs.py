"""Uploads what a command left behind: its output directories, and what it wrote to stdout and stderr.

Everything here may be done again after an interruption: an object that is already there is replaced.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import BinaryIO, cast

from windlass_agent.core.mount_plan import Transfer
from windlass_agent.runner.steps.base import StepContext, StepFailure, transfer
from windlass_agent.runner.steps.threads import in_thread
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.states import LogStream
from windlass_proto.model.storage import parse_object_url

_READ_BYTES = 1 << 20


async def store_results(
    context: StepContext, spools: Mapping[LogStream, OutputSpool], *, with_directories: bool
) -> StepFailure | None:
    """The first failure, after everything was tried: what can be saved is saved."""
    actions: list[Callable[[], None]] = []
    if with_directories:
        actions += [partial(_store_directory, context, mapping) for mapping in context.mounts.outputs]
    for stream, url in ((LogStream.STDOUT, context.spec.stdout), (LogStream.STDERR, context.spec.stderr)):
        if url:
            actions.append(partial(_store_stream, context, spools[stream], stream, url))
    failures = [
        await in_thread(partial(transfer, action, unavailable=FailureKind.OUTPUT)) for action in actions
    ]
    return next((failure for failure in failures if failure is not None), None)


class SpoolStream(io.RawIOBase):
    """A command's output from its first byte on, as a file that can be read once."""

    def __init__(self, spool: OutputSpool) -> None:
        self._spool = spool
        self._offset = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Skips bytes that were dropped because the spool was full."""
        if size is None or size < 0:
            return self.readall()
        while self._offset < self._spool.produced_end():
            data = self._spool.read(self._offset, min(size, _READ_BYTES) or 1)
            if data:
                self._offset += len(data)
                return data
            self._offset = self._behind_gap()
        return b""

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(_READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def _behind_gap(self) -> int:
        ends = [gap.offset + gap.length for gap in self._spool.gaps() if gap.offset <= self._offset]
        return max((end for end in ends if end > self._offset), default=self._spool.produced_end())


def log_object_name(context: StepContext, stream: LogStream) -> str:
    """The name that the services before us gave it."""
    return f"{stream}.{context.job_id}.{context.spec.name}.{context.ref.index}"


def _store_directory(context: StepContext, mapping: Transfer) -> None:
    storage = context.storages.for_scheme(mapping.location.scheme, storage=mapping.storage)
    storage.store_directory(mapping.directory, mapping.location, cancelled=context.cancelled)


def _store_stream(context: StepContext, spool: OutputSpool, stream: LogStream, url: str) -> None:
    target = parse_object_url(url).child(log_object_name(context, stream))
    storage = context.storages.for_scheme(target.scheme)
    reader = cast(BinaryIO, SpoolStream(spool))  # typeshed's BinaryIO has no stream that only reads
    storage.store_stream(reader, target, cancelled=context.cancelled)
