"""What a claim of cores becomes in the slot's group, v1 and v2."""

from pathlib import Path

import pytest

from windlass_agent.keeper.cgroup import Cpu


def group(directory: Path, version: int) -> Path:
    names = ("cpu.shares", "cpu.cfs_quota_us") if version == 1 else ("cpu.weight", "cpu.max")
    for name in names:
        (directory / name).touch()
    return directory


def said(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir()) if path.read_text()}


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        (1, "shares", {"cpu.shares": "2560"}),
        (1, "quota", {"cpu.shares": "2560", "cpu.cfs_quota_us": "250000"}),
        (2, "shares", {"cpu.weight": "250"}),
        (2, "quota", {"cpu.weight": "250", "cpu.max": "250000 100000"}),
    ],
)
def test_a_claim_is_a_share_and_if_wanted_the_most(
    tmp_path: Path, version: int, kind: str, expected: dict[str, str]
) -> None:
    Cpu(str(group(tmp_path, version)), kind).prepare(2.5)
    assert said(tmp_path) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (1, {"cpu.shares": "1024", "cpu.cfs_quota_us": "-1"}),
        (2, {"cpu.weight": "100", "cpu.max": "max 100000"}),
    ],
)
def test_the_next_command_without_a_claim_has_no_limit(
    tmp_path: Path, version: int, expected: dict[str, str]
) -> None:
    cpu = Cpu(str(group(tmp_path, version)), "quota")
    cpu.prepare(0.001)
    for path in tmp_path.iterdir():
        path.write_text("")
    cpu.prepare(0)
    assert said(tmp_path) == expected


def test_what_is_so_already_is_not_written_again(tmp_path: Path) -> None:
    cpu = Cpu(str(group(tmp_path, 2)), "shares")
    cpu.prepare(0)
    assert said(tmp_path) == {}
