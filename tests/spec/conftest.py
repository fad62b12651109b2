"""Examples of specs are the same in every run, unless more of them are asked for (`make models`)."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.examples import FACTOR, examples
from tests.support.quick_schema import migrate_quickly
from windlass_coordinator.stores.sqlite import files

settings.register_profile("spec", parent=examples(100 if FACTOR > 1 else 50))
settings.load_profile("spec")


@pytest.fixture(autouse=True, scope="session")
def _quick_schema() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "migrate", migrate_quickly)
        yield
