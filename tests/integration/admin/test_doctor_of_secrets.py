"""What the coordinator's doctor says of the master key and of what is sealed."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from windlass_coordinator.admin.doctor import diagnose
from windlass_coordinator.auth.sealing import MASTER_KEY_FILE, Seal, open_sealer
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto.model.diagnosis import Finding
from windlass_proto.model.ids import DEFAULT_TENANT
from windlass_proto.model.secrets import SecretKind

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """With one stored secret."""
    tmp_path.chmod(0o700)
    seal = Seal(tenant=DEFAULT_TENANT, name="a", kind=SecretKind.LOGIN)
    sealed = open_sealer(tmp_path / MASTER_KEY_FILE).seal(b"x", seal)
    store = open_store(f"sqlite:///{tmp_path / 'windlass.db'}")
    secret = SealedSecret(name="a", kind=SecretKind.LOGIN, sealed=sealed)
    store.run_now(lambda tx: tx.put_secret(DEFAULT_TENANT, secret, now=NOW))
    store.close()
    return tmp_path


def finding(data: Path) -> Finding:
    (found,) = [one for one in diagnose(data) if one.what == "secrets.key"]
    return found


def test_the_right_key_opens_all(data: Path) -> None:
    assert "it opens all 1 stored secrets" in finding(data).says


def test_another_key_is_a_problem(data: Path) -> None:
    (data / MASTER_KEY_FILE).write_text("0" * 64)
    assert finding(data).says == "1 of 1 stored secrets are sealed under another key"


def test_a_key_that_others_can_read_is_a_problem(data: Path) -> None:
    (data / MASTER_KEY_FILE).chmod(0o644)
    assert "others can read it: chmod 600" in finding(data).says


def test_a_key_that_is_not_there_is_told_with_what_needs_it(data: Path) -> None:
    (data / MASTER_KEY_FILE).unlink()
    assert "1 secrets are sealed" in finding(data).says
    with sqlite3.connect(data / "windlass.db") as database:
        database.execute("DELETE FROM secrets")
    database.close()
    assert finding(data).says == "it is not there"
