"""A whole system as a user has it: `windlass up` on a data directory of its own."""

from collections.abc import Iterator

import pytest

from tests.e2e.laptop_user import User, left_behind


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody who has typed `windlass up --detach`; ends it all, and looks that nothing is left behind."""
    user = User(data=tmp_path_factory.mktemp("user") / "data")
    user.goes_up()
    try:
        yield user
    finally:
        user.goes_down()
        assert left_behind(user.data) == []
