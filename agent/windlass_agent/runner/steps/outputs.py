"""Uploads what a command left behind: its output directories, its log files, and what it wrote to stdout and
stderr.

Everything here may be done again after an interruption. Results of a command that went well are tried again
and again until the time for uploading is over: work may be lost otherwise.
"""

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath

import structlog

from windlass_agent.core.backoff import Backoff
from windlass_agent.core.output_gate import LeaseOver
from windlass_agent.mounts.base import BadMapping, StorageUnavailable, StoreRefused, TransferCancelled
from windlass_agent.mounts.output_store import Outgoing, OutputSource
from windlass_agent.runner.steps.base import StepContext, StepFailure
from windlass_agent.runner.steps.output_files import is_regular, open_below
from windlass_agent.runner.steps.output_journal import OutputJournal
from windlass_agent.runner.steps.publish import publish_outputs
from windlass_agent.runner.steps.threads import in_thread
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.failpoints import reach
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.specs import LogMapping
from windlass_proto.model.states import LogStream
from windlass_proto.model.storage import ObjectLocation, parse_object_url

_READ_BYTES = 1 << 20
_BACKOFF = Backoff(base=timedelta(seconds=1), ceiling=timedelta(seconds=30))
_MAY_PASS = (StorageUnavailable, StoreRefused, LeaseOver)
"""What may be otherwise a while later."""

log = structlog.get_logger()


class CommandEnd(StrEnum):
    """Decides what of a command's results is uploaded."""

    SUCCEEDED = "succeeded"
    """Everything, or the attempt has not succeeded."""
    FAILED = "failed"
    """Everything, but nobody waits long for it."""
    STOPPED = "stopped"
    """Logs only."""


async def store_results(
    context: StepContext, spools: Mapping[LogStream, OutputSpool], *, with_directories: bool
) -> StepFailure | None:
    """The first failure, after everything was tried: what can be saved is saved."""
    end = CommandEnd.STOPPED
    if with_directories:
        end = CommandEnd.FAILED if context.has_failed else CommandEnd.SUCCEEDED
    journal = OutputJournal(context.folders.root)
    uploads = _LogUploads(context, spools, journal)
    todo: list[Callable[[], Awaitable[None]]] = [uploads.run]
    if end is not CommandEnd.STOPPED and context.mounts.outputs:
        is_failed = end is CommandEnd.FAILED
        todo.append(partial(publish_outputs, context, journal, of_failed_command=is_failed))
    try:
        failure = await _try(context, todo, end=end)
        if journal.unfinished():
            await in_thread(partial(_give_up_unfinished, context, journal))
    finally:
        journal.close()
    context.note = "; ".join(uploads.missing)
    return StepFailure(kind=FailureKind.OUTPUT, reason=failure) if failure else None


async def _try(context: StepContext, todo: list[Callable[[], Awaitable[None]]], *, end: CommandEnd) -> str:
    """The first failure; "" = none. What has been done is not done again."""
    rounds = 0
    while True:
        problems: list[Exception] = []
        left = []
        for upload in todo:
            try:
                await context.gate.held()
                await upload()
            except (BadMapping, StorageUnavailable, LeaseOver, TransferCancelled) as problem:
                problems.append(problem)
                left.append(upload)
        if not problems:
            return ""
        if end is not CommandEnd.SUCCEEDED or not all(isinstance(one, _MAY_PASS) for one in problems):
            return str(problems[0])
        todo, rounds = left, rounds + 1
        context.trouble = str(problems[0])
        log.warning("outputs.failed", reason=context.trouble, job=context.job_id, tried=rounds)
        await asyncio.sleep(_BACKOFF.delay(rounds, jitter=random.random()).total_seconds())


def _give_up_unfinished(context: StepContext, journal: OutputJournal) -> None:
    """Uploads in parts that nobody goes on with: their parts would lie in the store for ever."""
    try:
        for one in journal.unfinished():
            storage = context.storages.for_scheme(one.target.scheme, storage=one.storage)
            storage.outputs.abort(one.target, one.upload_id)
            journal.note_ended(one.target)
    except (BadMapping, StorageUnavailable) as problem:
        log.warning("outputs.parts_left", reason=str(problem))


class _LogUploads:
    """Standard output and error, and log files: each to a name of its own, without staging."""

    def __init__(
        self, context: StepContext, spools: Mapping[LogStream, OutputSpool], journal: OutputJournal
    ) -> None:
        self._context, self._spools, self._journal = context, spools, journal
        self.missing: list[str] = []
        """What was to be copied out and is not there."""

    async def run(self) -> None:
        """Tries all of them; raises the first problem."""
        problems: list[Exception] = []
        self.missing = []
        for one in self._streams():
            problems += await self._send(one)
        for mapping in self._context.spec.logs:
            problems += await self._send_log(mapping)
        if problems:
            raise problems[0]

    def _streams(self) -> Iterator[Outgoing]:
        spec = self._context.spec
        for stream, url in ((LogStream.STDOUT, spec.stdout), (LogStream.STDERR, spec.stderr)):
            if url:
                target = parse_object_url(url).child(log_object_name(self._context, stream))
                yield Outgoing(target=target, open=partial(_open_spool, self._spools[stream]))

    async def _send_log(self, mapping: LogMapping) -> list[Exception]:
        path = path_of(self._context, mapping.source)
        root = self._context.folders.root
        try:
            is_there = await in_thread(partial(is_regular, root, path))
        except OSError:
            is_there = False
        if not is_there:
            self.missing.append(f"the log file {mapping.source} is not there, or no file")
            return []
        return await self._send(Outgoing(target=log_target(mapping), open=partial(open_below, root, path)))

    async def _send(self, one: Outgoing) -> list[Exception]:
        if self._journal.sent(one.target, None) is not None:
            return []
        context = self._context

        def send() -> None:
            context.gate.check()
            store = context.storages.for_scheme(one.target.scheme).outputs
            store.send_all(
                [one],
                sent=lambda done, sent: self._journal.note_sent(done.target, None, sent),
                book=self._journal.uploads(""),
                cancelled=context.cancelled,
            )
            reach("agent.outputs.after_log")

        try:
            await in_thread(send)
        except (BadMapping, StorageUnavailable, LeaseOver, TransferCancelled) as problem:
            return [problem]
        return []


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

    def check(self, read_bytes: int) -> None:
        """The command has ended: nothing is written any more."""

    def _behind_gap(self) -> int:
        ends = [gap.offset + gap.length for gap in self._spool.gaps() if gap.offset <= self._offset]
        return max((end for end in ends if end > self._offset), default=self._spool.produced_end())


@contextmanager
def _open_spool(spool: OutputSpool) -> Iterator[OutputSource]:
    yield SpoolStream(spool)


def log_object_name(context: StepContext, stream: LogStream) -> str:
    """The name that the services before us gave it."""
    return f"{stream}.{context.job_id}.{context.spec.name}.{context.ref.index}"


def log_target(mapping: LogMapping) -> ObjectLocation:
    target = parse_object_url(mapping.destination)
    return target.child(PurePosixPath(mapping.source).name) if target.is_directory else target


def path_of(context: StepContext, source: str) -> Path:
    """Where a file that the command calls `source` lies. An absolute one is in one of the directories that
    are mapped there: the rest of the node is not the task's to read."""
    path = PurePosixPath(source)
    if not path.is_absolute():
        return context.folders.work / path
    for bind in reversed(context.mounts.binds):
        if path.is_relative_to(bind.target):
            return bind.directory / path.relative_to(bind.target)
    raise BadMapping(f"the log file {source} lies in no directory that is mapped; use a relative path")
