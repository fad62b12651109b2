"""Backups with what the commands wrote: whole by their manifest, and for known attempts only."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.operator import contents, coordinator_verb, done
from tests.support.transcript import SpokenAgent, Transcript, started
from windlass.client import Client
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec

KNOWN = {
    "0.1.stdout": b"what it wrote",
    "0.1.stdout.gaps": b'{"offset": 4, "length": 3, "reason": "quota"}\n',
}
UNKNOWN = {"0.2.stdout": b"of an attempt that the database does not know", "1.1.stderr": b"nor this one"}


@pytest.fixture
async def streams(own: CoordinatorProcess) -> Path:
    """The folder of a task's output, relative to the logs: one attempt is on record, others are not."""
    transcript = Transcript(own)
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    task = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)))
    async with Client(own.profile) as client:
        job_id = await client.submit(JobSpec(name="job", tasks=(task,)))
    (ref,) = await agent.poll()
    await agent.report((ref, started()))
    await transcript.close()
    folder = own.data / "logs" / job_id / str(ref.task_key) / "0"
    folder.mkdir(parents=True)
    for name, content in (KNOWN | UNKNOWN).items():
        (folder / name).write_bytes(content)
    (own.data / "logs" / "job-of-nobody").mkdir()
    return folder.relative_to(own.data)


def of_streams(data: Path, streams: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / streams).iterdir()}


def test_output_of_known_attempts_comes_back_byte_for_byte(
    own: CoordinatorProcess, streams: Path, tmp_path: Path
) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    told = done(
        coordinator_verb("backup", "--data", own.data, "--to", backup, "--with-logs", "--json"),
    )
    assert json.loads(told)["logs"] == {"files": 2, "bytes": sum(map(len, KNOWN.values()))}
    manifest = [json.loads(line) for line in (backup / "manifest.jsonl").read_text().splitlines()]
    assert {Path(line["path"]).name: line["bytes"] for line in manifest} == {
        name: len(content) for name, content in KNOWN.items()
    }

    done(coordinator_verb("restore", "--from", backup, "--data", again))
    assert of_streams(again, streams) == KNOWN
    assert [path.name for path in (again / "logs").iterdir()] == [streams.parts[1]]
    assert coordinator_verb("doctor", "--data", again).returncode == 0


def test_logs_that_outlived_the_database_are_taken_as_far_as_the_backup_knows_them(
    own: CoordinatorProcess, streams: Path, tmp_path: Path
) -> None:
    done(coordinator_verb("backup", "--data", own.data, "--to", tmp_path / "b.db"))
    (own.data / streams / "0.1.stdout").write_bytes(b"what it wrote, and more since")
    again = tmp_path / "again"
    done(
        coordinator_verb(
            *("restore", "--from", tmp_path / "b.db", "--data", again, "--logs", own.data / "logs")
        )
    )
    assert of_streams(again, streams) == KNOWN | {"0.1.stdout": b"what it wrote, and more since"}


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_logs_that_are_not_what_was_backed_up_are_refused(
    own: CoordinatorProcess, streams: Path, tmp_path: Path, harm: str
) -> None:
    backup = tmp_path / "backup"
    done(coordinator_verb("backup", "--data", own.data, "--to", backup, "--with-logs"))
    victim = backup / streams / "0.1.stdout"
    if harm == "changed":
        victim.write_bytes(b"What it wrote")
    else:
        victim.unlink()
    before = contents(backup)

    refused = coordinator_verb("restore", "--from", backup, "--data", tmp_path / "again")

    assert refused.returncode == 2
    assert "0.1.stdout" in refused.stderr
    assert not (tmp_path / "again").exists()
    assert contents(backup) == before
    shutil.rmtree(backup)
