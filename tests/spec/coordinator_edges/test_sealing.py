"""What is sealed under the master key, and what opens it."""

from dataclasses import replace
from pathlib import Path

import pytest

from windlass_coordinator.auth.sealing import OtherMasterKey, Seal, Sealer, open_sealer
from windlass_proto.errors import Conflict
from windlass_proto.model.ids import TenantId
from windlass_proto.model.secrets import SecretKind

SEAL = Seal(tenant=TenantId("us"), name="a", kind=SecretKind.STORAGE)
ONE, OTHER = b"1" * 32, b"2" * 32


def a_sealer(*keys: bytes) -> Sealer:
    return Sealer(keys or (ONE,), origin="here")


def test_what_was_sealed_opens_and_does_not_show_what_it_is() -> None:
    sealed = a_sealer().seal(b"the document", SEAL)
    assert b"document" not in sealed
    assert a_sealer().open(sealed, SEAL) == b"the document"


def test_the_same_document_is_sealed_differently_each_time() -> None:
    assert a_sealer().seal(b"x", SEAL) != a_sealer().seal(b"x", SEAL)


@pytest.mark.parametrize(
    "other",
    [
        replace(SEAL, tenant=TenantId("them")),
        replace(SEAL, name="b"),
        replace(SEAL, kind=SecretKind.LOGIN),
    ],
)
def test_what_was_moved_to_another_row_does_not_open(other: Seal) -> None:
    with pytest.raises(Conflict, match="was changed in the database"):
        a_sealer().open(a_sealer().seal(b"x", SEAL), other)


def test_what_was_changed_does_not_open() -> None:
    sealed = bytearray(a_sealer().seal(b"x", SEAL))
    sealed[-1] ^= 1
    with pytest.raises(Conflict, match="was changed in the database: put it again"):
        a_sealer().open(bytes(sealed), SEAL)


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02" + b"0" * 60])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(OtherMasterKey):
        a_sealer().open(sealed, SEAL)


def test_under_another_master_key_it_does_not_open_and_the_key_file_is_named() -> None:
    with pytest.raises(OtherMasterKey, match="'a' is sealed under a master key that is not in here"):
        a_sealer(OTHER).open(a_sealer(ONE).seal(b"x", SEAL), SEAL)


def test_a_key_is_replaced_by_writing_the_next_one_above_it() -> None:
    old = a_sealer(ONE).seal(b"old", SEAL)
    both = a_sealer(OTHER, ONE)
    assert both.open(old, SEAL) == b"old"
    assert a_sealer(OTHER).open(both.seal(b"new", SEAL), SEAL) == b"new"


def test_keys_are_in_no_message(tmp_path: Path) -> None:
    assert repr(a_sealer()) == "Sealer('here', keys hidden)"


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    sealed = open_sealer(file).seal(b"x", SEAL)
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_sealer(file).open(sealed, SEAL) == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ("1" * 64, 0o640, "others can read it: chmod 600"),
        ("", 0o600, "must hold keys of 64 hex digits, one a line"),
        ("1" * 63, 0o600, "must hold keys of 64 hex digits, one a line"),
        ("ü" * 64, 0o600, "must hold keys of 64 hex digits, one a line"),
    ],
)
def test_a_file_that_cannot_be_the_key_file_is_refused(
    tmp_path: Path, content: str, mode: int, complaint: str
) -> None:
    file = tmp_path / "master.key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(Conflict, match=complaint) as refused:
        open_sealer(file)
    assert "1" * 10 not in str(refused.value)


def test_a_key_file_that_cannot_be_made_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"none/master\.key: cannot be made: No such file"):
        open_sealer(tmp_path / "none/master.key")
