"""A coordinator in memory for each spec."""

from collections.abc import Iterator

import pytest

from tests.support.coordinator import InMemoryCoordinator


@pytest.fixture
def coordinator() -> Iterator[InMemoryCoordinator]:
    with InMemoryCoordinator() as coordinator:
        yield coordinator
