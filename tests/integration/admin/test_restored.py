"""`windlass-coordinator restored`: for databases that were restored by their own tools."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.coordinator_process import CoordinatorProcess
from tests.support.operator import coordinator_verb, done
from windlass_coordinator.stores import open_store


def a_file(folder: Path) -> str:
    return f"sqlite:///{folder / 'windlass.db'}"


def a_server(_: Path) -> str:
    return postgres.new_database()


@pytest.mark.parametrize("make_url", [a_file, a_server])
def test_each_time_a_higher_incarnation_begins(tmp_path: Path, make_url: Callable[[Path], str]) -> None:
    url = make_url(tmp_path)
    seen = [incarnation_of(url)]
    for _ in range(2):
        done(coordinator_verb("restored", "--store", url))
        seen.append(incarnation_of(url))
    assert seen == sorted(set(seen))


def incarnation_of(url: str) -> int:
    store = open_store(url)
    try:
        return store.run_now(lambda tx: tx.incarnation())
    finally:
        store.close()


def test_a_running_coordinators_database_is_left_alone(own: CoordinatorProcess) -> None:
    refused = coordinator_verb("restored", "--store", a_file(own.data))
    assert refused.returncode == 2
    assert "stop it first" in refused.stderr


def test_a_mistyped_file_is_not_made(tmp_path: Path) -> None:
    refused = coordinator_verb("restored", "--store", a_file(tmp_path / "nowhere"))
    assert refused.returncode == 2
    assert not (tmp_path / "nowhere").exists()
    refused = coordinator_verb("restored", "--store", a_file(tmp_path))
    assert refused.returncode == 2
    assert list(tmp_path.iterdir()) == []
