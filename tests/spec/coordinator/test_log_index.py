"""A log index that falls back to an earlier moment is noticed before anything is told or written by it."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stored_records import NOW
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import DEFAULT_TENANT
from windlass_proto.model.secrets import SecretKind


class FailedDisk:
    """A database whose index the disk took for the last time before the second of two secrets was kept."""

    def __init__(self, directory: Path) -> None:
        self.told: list[str] = []
        self._directory = directory
        self._index = directory / "windlass.db-shm"
        condition = StoreCondition(on_broken=self.told.append)
        self.store = open_store(f"sqlite:///{directory / 'windlass.db'}", condition=condition)
        self.keep("first")
        # By other programs: to close the file here would take SQLite's locks from this process.
        self._taken = subprocess.run(["cat", str(self._index)], capture_output=True, check=True).stdout
        self.keep("second")

    def forget(self) -> None:
        """What was not taken."""
        subprocess.run(["tee", str(self._index)], input=self._taken, stdout=subprocess.DEVNULL, check=True)

    def keep(self, name: str) -> None:
        secret = SealedSecret(name=name, kind=SecretKind.LOGIN, sealed=b"sealed")
        self.store.run_now(lambda tx: tx.put_secret(DEFAULT_TENANT, secret, now=NOW))

    def names_after_a_start(self) -> list[str]:
        """As the next process finds the files."""
        copy = self._directory / "copy"
        copy.mkdir()
        for name in ("windlass.db", "windlass.db-wal"):
            shutil.copy(self._directory / name, copy)
        store = open_store(f"sqlite:///{copy / 'windlass.db'}")
        try:
            return names(store)
        finally:
            store.close()


def names(store: Store) -> list[str]:
    return [secret.name for secret in store.run_now(lambda tx: tx.list_secrets(DEFAULT_TENANT))]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailedDisk]:
    disk = FailedDisk(tmp_path)
    yield disk
    disk.store.close()


def test_nothing_is_written_by_an_older_index_and_all_is_there_after_a_start(disk: FailedDisk) -> None:
    disk.forget()
    with pytest.raises(Unavailable, match="the index of its log is an older one"):
        disk.keep("third")

    assert len(disk.told) == 1
    with pytest.raises(Unavailable, match="the index of its log is an older one"):
        names(disk.store)
    assert disk.names_after_a_start() == ["first", "second"]


def test_nothing_is_told_by_an_older_index(disk: FailedDisk) -> None:
    async def read() -> object:
        return await disk.store.read(lambda _: "believed")

    assert asyncio.run(read()) == "believed"
    disk.forget()
    with pytest.raises(Unavailable, match="the index of its log is an older one"):
        asyncio.run(read())
    assert len(disk.told) == 1


def test_an_index_that_was_taken_whole_and_a_commit_without_changes_are_no_trouble(disk: FailedDisk) -> None:
    disk.store.run_now(lambda _: None)
    disk.keep("third")

    assert (names(disk.store), disk.told) == (["first", "second", "third"], [])
