"""What programs that laptop mode starts find in their environment."""

import pytest

from windlass import environment


def test_jobs_of_a_laptop_may_map_its_own_directories_unless_its_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WINDLASS_COORDINATOR_LIMITS_LOCAL_FILES", raising=False)
    monkeypatch.setenv("WINDLASS_AGENT_LOCAL_DIRECTORIES", "/data")
    given = environment.for_children()
    assert given["WINDLASS_COORDINATOR_LIMITS_LOCAL_FILES"] == "true"
    assert given["WINDLASS_AGENT_LOCAL_DIRECTORIES"] == "/data"
