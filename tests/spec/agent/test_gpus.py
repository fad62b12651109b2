"""Which GPUs a node offers; NVIDIA's binding is the real one, the library below it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fake_nvml
from windlass_agent.node.gpus import NodeGpus, gpus_of_node

_ASK = """
import json
from dataclasses import asdict
from windlass_agent.node.gpus import gpus_of_node
print(json.dumps(asdict(gpus_of_node(None))))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fake_nvml.build(tmp_path_factory.mktemp("nvml"))


def found(program: str = _ASK, **environment: str) -> NodeGpus:
    """A process of its own asks: what a library says is remembered."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    return NodeGpus(**told | {"names": tuple(told["names"])})


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("", ()),
        ("www", ("0", "1", "2")),
        ("wlw", ("0", "2")),
        ("2w", ("MIG-0-0", "MIG-0-1", "1")),
        ("0w", ("1",)),
    ],
)
def test_gpus_are_named_by_index_and_parts_of_one_by_their_uuid(
    library: str, machine: str, names: tuple[str, ...]
) -> None:
    assert found(LD_LIBRARY_PATH=library, FAKE_NVML=machine) == NodeGpus(names=names)


def test_a_machine_without_the_driver_has_no_gpus(library: str) -> None:
    assert found(LD_LIBRARY_PATH=library, FAKE_NVML="d") == NodeGpus()


def test_a_machine_without_nvml_or_its_binding_has_no_gpus() -> None:
    no_library = "import pynvml\ndef absent(name): raise OSError(name)\npynvml.CDLL = absent\n"
    assert found(no_library + _ASK) == NodeGpus()
    assert found("import sys\nsys.modules['pynvml'] = None\n" + _ASK) == NodeGpus()


def test_a_driver_that_cannot_be_asked_is_told(library: str) -> None:
    gpus = found(LD_LIBRARY_PATH=library, FAKE_NVML="m")
    assert (gpus.names, gpus.are_given_out) == ((), False)
    assert "mismatch" in gpus.problem


def test_what_the_settings_say_wins_and_nothing_is_asked() -> None:
    assert gpus_of_node(("3", "GPU-ab")) == NodeGpus(names=("3", "GPU-ab"), is_said=True)


def test_commands_see_only_what_they_were_given_when_the_node_has_gpus_or_says_that_it_offers_none() -> None:
    assert NodeGpus(names=("0",)).are_given_out
    assert NodeGpus(is_said=True).are_given_out
    assert not NodeGpus().are_given_out


@pytest.mark.parametrize(("cuda_sees", "exit_code"), [(None, 0), ("0", 1), ("", 1)])
def test_the_probe_for_real_machines_tells_whether_commands_see_what_they_were_given(
    tmp_path: Path, cuda_sees: str | None, exit_code: int
) -> None:
    fake_nvml.build(tmp_path)
    environment = {"LD_LIBRARY_PATH": fake_nvml.build_cuda(tmp_path), "FAKE_NVML": "ww"}
    if cuda_sees is not None:
        environment["FAKE_CUDA_SEES"] = cuda_sees
    probe = [sys.executable, "-m", "tests.hardware.gpu_probe"]
    done = subprocess.run(probe, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("right:") == 5) == (exit_code, exit_code == 0), done
