"""Outputs from the attempt's directory to their final names: staged, granted, copied, compared, cleaned up.

Every step may be interrupted anywhere and done again. Only the attempt that the coordinator has granted it
gives objects their final names, and only while its node's lease holds, so that a late one cannot mix its
files in (decision 0014).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event

import structlog

from windlass_agent.core.output_gate import Wish
from windlass_agent.core.output_manifest import (
    InstanceName,
    Manifest,
    OutputTarget,
    PublishedFile,
    digest_of,
    files_of,
    twice_named,
)
from windlass_agent.mounts.base import BadMapping, StorageUnavailable, StoreRefused, TransferCancelled
from windlass_agent.mounts.output_store import FoundObject, Outgoing, OutputSource, OutputStore, Sent
from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.steps.output_files import FileState, FoundFile, files_below, open_below
from windlass_agent.runner.steps.output_journal import OutputJournal
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.failpoints import reach
from windlass_proto.model.storage import ObjectLocation

_COPIES_AT_ONCE = 8
_LOOKS_MOST = 20
"""So many objects are asked for one by one; a listing may hold those of a thousand other instances."""

log = structlog.get_logger()


async def publish_outputs(context: StepContext, journal: OutputJournal, *, of_failed_command: bool) -> None:
    """Returns when all that the command left is published and compared with what the store has."""
    publication = _Publication(context, journal)
    manifest = await in_thread(publication.stage)
    data = manifest.data()
    reach("agent.outputs.before_commit")
    grant = await context.gate.commit(
        Wish(
            ref=context.ref,
            manifest_digest=digest_of(data),
            files=manifest.count,
            size_bytes=manifest.size_bytes,
            of_failed_command=of_failed_command,
        )
    )
    if not grant.granted:
        raise BadMapping(f"the outputs may not be published: {grant.reason}")
    reach("agent.outputs.after_commit")
    supersedes = journal.note_granted(supersedes=grant.supersedes)
    if not journal.is_published:
        await in_thread(partial(publication.publish, manifest, supersedes=supersedes))
    await in_thread(partial(publication.finish, manifest, data))


class _Publication:
    """One attempt's outputs; all methods block."""

    def __init__(self, context: StepContext, journal: OutputJournal) -> None:
        self._context, self._journal = context, journal
        self._instance = InstanceName(job_id=context.job_id, task=context.spec.name, index=context.ref.index)

    def stage(self) -> Manifest:
        """Sends what is not in the store yet; the files are those of the moment at which they were read."""
        found, left_out = self._found()
        double = twice_named((target, one.name) for target, files in found.items() for one, _ in files)
        if double is not None:
            raise BadMapping(f"two output files want to be {double}; map their directories to different ones")
        staged = {target: self._stage(target, files) for target, files in found.items()}
        return Manifest(
            instance=self._instance, ref=self._context.ref, files=staged, left_out=tuple(left_out)
        )

    def publish(self, manifest: Manifest, *, supersedes: bool) -> None:
        """Granted by the coordinator: the objects get their names."""
        for target, files in manifest.files.items():
            store = self._store(target)
            self._check()
            earlier = self._earlier(store, target)
            if supersedes:
                self._retire(store, target, files, earlier)
            # First of all: what an attempt that was lost still wants to copy is not there any more.
            self._check()
            store.remove([one.location for one in earlier])
            names = self._copy(store, target, files)
            reach("agent.outputs.before_compare")
            self._compare(store, target, files, names)
        self._journal.note_published()
        reach("agent.outputs.after_compare")

    def finish(self, manifest: Manifest, data: bytes) -> None:
        """Everything is published: says so, and tidies up."""
        for target in manifest.files:
            self._check()
            self._store(target).put(target.manifest(self._instance), data)
        reach("agent.outputs.after_manifest")
        for target, files in manifest.files.items():
            self._clear(target, files)
        reach("agent.outputs.after_clear")

    # -- staging

    def _found(self) -> tuple[dict[OutputTarget, list[tuple[FoundFile, str]]], list[str]]:
        """The files of each target, each with the directory that it is from."""
        found: dict[OutputTarget, list[tuple[FoundFile, str]]] = {}
        left_out: list[str] = []
        root = self._context.folders.root
        for mapping in self._context.mounts.outputs:
            files, others = files_below(root, mapping.directory)
            target = OutputTarget(location=_as_directory(mapping.location), storage=mapping.storage)
            found.setdefault(target, []).extend((one, str(mapping.directory)) for one in files)
            left_out += [f"{mapping.directory.name}/{name}" for name in others]
        return found, left_out

    def _stage(self, target: OutputTarget, files: list[tuple[FoundFile, str]]) -> tuple[PublishedFile, ...]:
        context, journal = self._context, self._journal
        staging = target.staging_of(self._instance, context.ref)
        states: dict[ObjectLocation, FileState] = {}

        def to_send() -> Iterator[Outgoing]:
            for one, directory in files:
                place = staging.child(one.name)
                if journal.sent(place, one.state) is None:
                    yield Outgoing(target=place, open=partial(self._open, place, directory, one.name, states))

        def note(one: Outgoing, sent: Sent) -> None:
            journal.note_sent(one.target, states[one.target], sent)
            reach("agent.outputs.after_send")

        store = self._store(target)
        if not journal.is_new:
            store.drop_parts(staging, but={one.upload_id for one in journal.unfinished()})
        book = journal.uploads(target.storage)
        store.send_all(to_send(), sent=note, book=book, cancelled=context.cancelled)
        return tuple(
            sorted(
                (self._published(staging.child(one.name), one.name) for one, _ in files),
                key=lambda one: one.name,
            )
        )

    @contextmanager
    def _open(
        self, place: ObjectLocation, directory: str, name: str, states: dict[ObjectLocation, FileState]
    ) -> Iterator[OutputSource]:
        root = self._context.folders.root
        with open_below(root, root.joinpath(directory, name)) as file:
            states[place] = file.state
            yield file

    def _published(self, place: ObjectLocation, name: str) -> PublishedFile:
        sent = self._journal.known(place)
        return PublishedFile(
            name=name,
            size_bytes=sent.size_bytes,
            sha256=sent.sha256,
            md5=sent.md5,
            parts_etag=sent.parts_etag,
        )

    # -- publishing

    def _earlier(self, store: OutputStore, target: OutputTarget) -> list[FoundObject]:
        """What other attempts of the instance have staged: all of them were before this one."""
        mine = target.staging_of(self._instance, self._context.ref)
        others = [place for place in store.directories(target.staging(self._instance)) if place != mine]
        return [one for place in others for one in store.below(place)]

    def _retire(
        self,
        store: OutputStore,
        target: OutputTarget,
        files: Iterable[PublishedFile],
        earlier: Iterable[FoundObject],
    ) -> None:
        """Removes what an earlier attempt has published and this one has not: by name, and only as long as it
        is what that attempt wrote, as other instances may write to the same directory."""
        kept = {one.name for one in files}
        begin = len(target.staging(self._instance).key)
        told: dict[str, Callable[[FoundObject], bool]] = {}
        for staged in earlier:
            _, _, name = staged.location.key[begin:].partition("/")
            told[name] = partial(_is_same, staged)
        before = store.get(target.manifest(self._instance))
        for file in files_of(before, target) if before is not None else ():
            told[file.name] = partial(_is_it, file)
        for name, is_it in told.items():
            self._check()
            there = store.look(target.final(name)) if name not in kept else None
            if there is not None and is_it(there):
                store.remove([there.location])

    def _copy(
        self, store: OutputStore, target: OutputTarget, files: Iterable[PublishedFile]
    ) -> dict[str, str]:
        """The names that the store gave the copies."""
        staging = target.staging_of(self._instance, self._context.ref)
        failed = Event()

        def copy(file: PublishedFile) -> tuple[str, str]:
            if failed.is_set():
                raise TransferCancelled("another copy has failed")
            self._check()
            try:
                etag = store.copy(
                    staging.child(file.name), target.final(file.name), size_bytes=file.size_bytes
                )
            except BaseException:
                failed.set()
                raise
            reach("agent.outputs.after_copy")
            return file.name, etag

        with ThreadPoolExecutor(_COPIES_AT_ONCE, "publish") as pool:
            copies = [pool.submit(copy, file) for file in files]
        problems = [problem for one in copies if (problem := one.exception()) is not None]
        problems.sort(key=lambda problem: isinstance(problem, TransferCancelled))
        if not problems:
            return dict(one.result() for one in copies)
        if isinstance(problems[0], StoreRefused) and self._is_staging_gone(store, staging, files):
            self._journal.forget_sent()
        raise problems[0]

    def _is_staging_gone(
        self, store: OutputStore, staging: ObjectLocation, files: Iterable[PublishedFile]
    ) -> bool:
        there = {one.location for one in store.below(staging)}
        return any(staging.child(file.name) not in there for file in files)

    def _compare(
        self,
        store: OutputStore,
        target: OutputTarget,
        files: tuple[PublishedFile, ...],
        copied_as: dict[str, str],
    ) -> None:
        """Raises StorageUnavailable when the store has something else than what was sent."""
        self._check()
        there = _there(store, target, files)
        for file in files:
            found = there.get(file.name)
            if found is None:
                raise StorageUnavailable(f"{target.final(file.name)}: is not there after it was published")
            sent = self._journal.known(self._staged(target, file.name))
            copied = copied_as[file.name]
            is_named_by_sums = file.is_called(sent.etag) and file.is_called(copied)
            same_name = file.is_called(found.etag) if is_named_by_sums else found.etag == copied
            if found.size_bytes != file.size_bytes or not same_name:
                raise StorageUnavailable(
                    f"{target.final(file.name)}: the store has {found.size_bytes} bytes ({found.etag}),"
                    f" published were {file.size_bytes} ({copied}): does anybody else write there?"
                )

    def _staged(self, target: OutputTarget, name: str) -> ObjectLocation:
        return target.staging_of(self._instance, self._context.ref).child(name)

    # -- afterwards

    def _clear(self, target: OutputTarget, files: Iterable[PublishedFile]) -> None:
        """Removes the staging, by the names that are known: some servers read all that they list. What stays,
        as without the right to delete, does no harm."""
        staging = target.staging_of(self._instance, self._context.ref)
        store = self._store(target)
        try:
            self._check()
            store.remove([staging.child(file.name) for file in files])
            store.drop_parts(target.staging(self._instance))
        except (BadMapping, StorageUnavailable) as problem:
            log.warning("outputs.staging_left", staging=str(staging), reason=str(problem))

    def _store(self, target: OutputTarget) -> OutputStore:
        storage = self._context.storages.for_scheme(target.location.scheme, storage=target.storage)
        return storage.outputs

    def _check(self) -> None:
        """Before each request that others could see."""
        if self._context.cancelled.is_set():
            raise TransferCancelled("it was stopped")
        self._context.gate.check()


def _there(
    store: OutputStore, target: OutputTarget, files: tuple[PublishedFile, ...]
) -> dict[str, FoundObject | None]:
    """What the store has under the names of the files."""
    found: dict[str, FoundObject | None] = {}
    if len(files) > _LOOKS_MOST:
        last, begin = target.final(files[-1].name).key, len(target.location.key)
        for one in store.below(target.location, first=files[0].name):
            if one.location.key > last:
                break
            found[one.location.key[begin:]] = one
    return {file.name: found.get(file.name) or store.look(target.final(file.name)) for file in files}


def _as_directory(location: ObjectLocation) -> ObjectLocation:
    return location if location.is_directory else replace(location, key=location.key + "/")


def _is_same(staged: FoundObject, there: FoundObject) -> bool:
    return (staged.size_bytes, staged.etag) == (there.size_bytes, there.etag)


def _is_it(file: PublishedFile, there: FoundObject) -> bool:
    return file.size_bytes == there.size_bytes and file.is_called(there.etag)
