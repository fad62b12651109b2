"""`windlass doctor` against a real coordinator, and against none."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.coordinator_process import CoordinatorProcess, environment
from tests.support.operator import DEADLINE_S


def examine(profile: Path) -> tuple[int, dict[str, dict[str, str]]]:
    completed = subprocess.run(
        [sys.executable, "-m", "windlass.cli.main", "--profile", str(profile), "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(),
        check=False,
    )
    assert "Traceback" not in completed.stderr
    return completed.returncode, {one["what"]: one for one in json.loads(completed.stdout)["findings"]}


def a_profile(folder: Path, address: str, token: str) -> Path:
    (folder / "token").write_text(token)
    file = folder / "client.toml"
    file.write_text(f'coordinator = "{address}"\ntoken_file = "token"\n')
    return file


def test_the_way_to_the_coordinator_is_looked_at_step_by_step(
    own: CoordinatorProcess, tmp_path: Path
) -> None:
    address = own.grpc_address
    assert examine(tmp_path / "nowhere.toml")[0] == 2

    code, found = examine(a_profile(tmp_path, address, "wla_wrong"))
    assert (code, found["token"]["health"]) == (1, "problem")

    code, found = examine(a_profile(tmp_path, address, own.admin_token))
    assert found["coordinator"]["health"] == "good"
    assert (code, found["nodes"]["health"]) == (1, "problem"), "there is no node yet"

    own.kill()
    code, found = examine(a_profile(tmp_path, address, own.admin_token))
    assert (code, found["coordinator"]["health"]) == (1, "problem")
    assert "windlass-coordinator doctor" in found["coordinator"]["do"]
