"""Where things lie in an agent's state directory."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from windlass_agent.spool.attempt_dir import attempt_path
from windlass_agent.state_dir import StateDir
from windlass_proto.errors import Conflict
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

REF = AttemptRef(task_key=TaskKey(7), index=3, attempt=2, fence=Fence(1 << 40))


def test_attempts_lie_where_the_spool_expects_them(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.attempt(REF) == attempt_path(state.attempts, REF)


def test_an_attempt_of_a_restored_coordinator_lies_beside_the_lost_one_of_its_number(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.attempt(REF) != state.attempt(replace(REF, fence=Fence(7 << 40)))


def test_a_state_directory_has_one_agent(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path), StateDir(tmp_path)
    first.open()
    with pytest.raises(Conflict, match="another agent uses the state directory"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_renamed_directory_is_the_same_place_and_a_copy_is_not(tmp_path: Path) -> None:
    first = StateDir(tmp_path / "first")
    first.open()
    place = first.place
    first.close()
    renamed = first.root.rename(tmp_path / "renamed")
    assert StateDir(renamed).place == place
    assert StateDir(shutil.copytree(renamed, tmp_path / "first")).place != place


def test_what_the_agent_ended_itself_is_remembered(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.ended_by_agent() == frozenset()
    state.note_ended_by_agent([REF])
    assert StateDir(tmp_path).ended_by_agent() == {REF}


def test_directories_of_forgotten_attempts_are_left_over(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.open()
    for name in ("7.3.2", "7.4.1"):
        (state.attempts / name).mkdir()
    assert state.leftovers([REF]) == [state.attempts / "7.4.1"]
    state.close()


def test_slots_of_earlier_agents_are_counted(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.open()
    assert state.slots_used() == 0
    state.slot(4).mkdir()
    assert state.slots_used() == 5
    state.close()
