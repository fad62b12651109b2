"""GPUs from the driver's library to the command that has them."""

import signal
from pathlib import Path

import pytest

from tests.support import fake_nvml
from tests.support.agent_system import SystemUnderTest, a_job, until_exists
from windlass_proto.model.ids import JobId
from windlass_proto.model.resources import Resources
from windlass_proto.model.states import JobState

_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "WINDLASS_GPUS")
_TELL = "echo " + " ".join("$" + "{" + name + "-unset}," for name in _VARIABLES)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What agents started from now on find: two GPUs."""
    monkeypatch.setenv("LD_LIBRARY_PATH", fake_nvml.build(tmp_path))
    monkeypatch.setenv("FAKE_NVML", "ww")


async def holds(system: SystemUnderTest, cluster: str, directory: Path, name: str) -> JobId:
    """A job that has one GPU, says which in the file `name`, and ends when `name.end` is there."""
    told = directory / name
    says = f"echo $WINDLASS_GPUS > {told}.new; mv {told}.new {told}"
    line = f"{says}; until [ -e {told}.end ]; do sleep 0.05; done"
    async with system.client() as client:
        return await client.submit(a_job(cluster, line, resources=Resources(gpus=1)))


async def gpu_of(directory: Path, name: str) -> str:
    await until_exists(directory / name)
    return (directory / name).read_text().strip()


async def test_each_running_command_has_gpus_of_its_own_over_a_restart_of_the_agent(
    system: SystemUnderTest, tmp_path: Path, nvml: None
) -> None:
    agent = await system.start_agent("gpus", slots=4)
    async with system.client() as client:
        (node,) = await client.nodes("gpus")
    assert node.gpus == 2
    jobs = [await holds(system, "gpus", tmp_path, name) for name in ("first", "second")]
    held = {await gpu_of(tmp_path, "first"), await gpu_of(tmp_path, "second")}
    assert held == {"0", "1"}

    jobs.append(await holds(system, "gpus", tmp_path, "third"))
    without = await system.run("gpus", _TELL)  # it passes by, and sees no GPU
    assert await system.log(without.job_id) == b", , ,\n"
    assert not (tmp_path / "third").exists()

    agent.end(signal.SIGKILL)
    agent.start_again()
    (tmp_path / "second.end").touch()
    assert await gpu_of(tmp_path, "third") == await gpu_of(tmp_path, "second")
    assert not (tmp_path / "first.end").exists()

    for name in ("first", "third"):
        (tmp_path / f"{name}.end").touch()
    async with system.client() as client:
        assert {(await client.wait(job)).state for job in jobs} == {JobState.SUCCEEDED}


async def test_settings_say_which_gpus_there_are_and_commands_with_files_see_theirs_too(
    system: SystemUnderTest,
) -> None:
    await system.start_agent("said", "--gpus", "3,GPU-8932f937-d72c")
    done = await system.run("said", _TELL, resources=Resources(gpus=2), stdout="oss://bucket/logs/")
    assert done.state is JobState.SUCCEEDED, done
    assert (
        await system.log(done.job_id) == b"3,GPU-8932f937-d72c, 3,GPU-8932f937-d72c, 3,GPU-8932f937-d72c,\n"
    )


async def test_a_node_without_gpus_changes_nothing_for_commands(
    system: SystemUnderTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", fake_nvml.build(tmp_path))
    monkeypatch.setenv("FAKE_NVML", "d")
    await system.start_agent("none")
    done = await system.run("none", _TELL, env={"CUDA_VISIBLE_DEVICES": "7"})
    assert await system.log(done.job_id) == b"7, unset, unset,\n"


async def test_a_job_that_wants_more_gpus_than_any_node_has_says_so(system: SystemUnderTest) -> None:
    await system.start_agent("few", "--gpus", "1")
    async with system.client() as client:
        job_id = await client.submit(a_job("few", "true", resources=Resources(gpus=2)))
        (task,) = (await client.get(job_id)).tasks
        await client.stop(job_id)
    assert task.reason == "waits: no node of cluster few has 2 GPUs (largest: 1)"
