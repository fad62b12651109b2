"""A coordinator that the test may end, and its commands as an operator gives them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess


@pytest.fixture
def own(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    with CoordinatorProcess(tmp_path / "data") as coordinator:
        yield coordinator
