"""What `make proto` would write is what is committed."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MESSAGES = Path("windlass_proto/v1")


def written_code(root: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (root / MESSAGES).glob("*_pb2*")}


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    proto = REPOSITORY / "proto"
    plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(proto)),
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")),
            *(f"--mypy_grpc_out=quiet:{tmp_path}", f"--plugin=protoc-gen-mypy_grpc={plugin}"),
            *(str(path) for path in sorted((proto / MESSAGES).glob("*.proto"))),
        ],
        check=True,
        timeout=60,
    )
    assert written_code(tmp_path) == written_code(proto), "run: make proto"
