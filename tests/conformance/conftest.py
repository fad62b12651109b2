"""Every entry of a seam, for the suites of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store


@pytest.fixture(params=["sqlite file", "sqlite memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every entry of the seam."""
    store = open_store(_url(request.param, tmp_path))
    yield store
    store.close()


def _url(entry: str, tmp_path: Path) -> str:
    match entry:
        case "sqlite file":
            return f"sqlite:///{tmp_path / 'windlass.db'}"
        case "sqlite memory":
            return "sqlite:///:memory:"
        case _:
            return postgres.new_database()
