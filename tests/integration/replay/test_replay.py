"""Past attempts, replayed: a real coordinator, agent and object store, and the command line."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.agent_system import Ended, SystemUnderTest, agent_system
from tests.support.archives import a_member, a_tar
from tests.support.s3_server import s3_server
from windlass_proto.model.specs import InputMapping, OutputMapping
from windlass_proto.model.states import JobState

PROGRAM = b"""#!/bin/sh
env | grep -E '^(WINDLASS|BATCH|GREETING)' | grep -v WORK_DIR | sort
cat "$1" lib/data
test "$WINDLASS_WORK_DIR" -ef . && test "$TMPDIR" -ef ../tmp && echo "at home"
echo result > out/result
echo "to stderr" >&2
test "$WINDLASS_INDEX" = 0 || exit 7
"""


@dataclass(slots=True, kw_only=True)
class Failed:
    """A job that failed, and whoever looks at it."""

    system: SystemUnderTest
    ended: Ended
    profile: Path

    def replay(self, *arguments: str, where: Path, job: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "windlass.cli.main", "--profile", str(self.profile), "replay"]
        return subprocess.run(
            [*command, job or f"{self.ended.job_id}/t/1", *arguments],
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def output(self) -> str:
        return asyncio.run(self.system.log(self.ended.job_id, index=1)).decode()


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    directory = tmp_path_factory.mktemp("system")
    (directory / "buckets/bucket").mkdir(parents=True)
    package = a_tar(
        directory / "p.tar.gz", a_member("run.sh", mode=0o755, content=PROGRAM), a_member("lib/data")
    )
    with s3_server(directory / "buckets") as s3, agent_system(directory, s3) as system:
        s3.put("bucket/p.tar.gz", package.read_bytes())
        s3.put("bucket/in/word", "word\n")
        profile = directory / "client.toml"
        profile.write_text(
            f'coordinator = "{system.address}"\ntoken_file = "coordinator/admin.token"\n'
            f'storage_file = "{s3.storage_file(directory / "client-storage.toml")}"\nbucket = "bucket"\n'
        )

        async def run() -> Ended:
            await system.start_agent("default", slots=2)
            return await system.run(
                "default",
                "./run.sh in/word",
                instances=2,
                package="oss://bucket/p.tar.gz",
                env={"GREETING": "good day"},
                inputs=(InputMapping(source="oss://bucket/in/", destination="in"),),
                outputs=(OutputMapping(source="out", destination="oss://bucket/out/"),),
                max_retries=1,
            )

        ended = asyncio.run(run())
        assert ended.state is JobState.FAILED
        yield Failed(system=system, ended=ended, profile=profile)


def test_a_failed_attempt_writes_and_ends_as_on_its_node(failed: Failed, tmp_path: Path) -> None:
    done = failed.replay(where=tmp_path)
    assert (done.returncode, done.stdout) == (7, failed.output()), done.stderr
    assert "WINDLASS_INDEX=1\n" in done.stdout
    assert "at home\n" in done.stdout
    assert "to stderr\n" in done.stderr
    (folder,) = tmp_path.iterdir()
    assert (folder / "work/out/result").read_text() == "result\n"


def test_what_is_mounted_is_taken_off_again(failed: Failed, tmp_path: Path) -> None:
    done = failed.replay("--directory", "here", where=tmp_path)
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("this machine has no /dev/fuse: inputs are copied")
    assert "mounted oss://bucket/in/, read-only" in done.stderr
    assert not os.path.ismount(tmp_path / "here/work/in")
    assert list((tmp_path / "here/work/in").iterdir()) == []


def test_an_earlier_attempt_can_be_named_and_inputs_can_be_copied(failed: Failed, tmp_path: Path) -> None:
    done = failed.replay("--attempt", "1", "--copy-inputs", "--directory", "here", where=tmp_path)
    assert done.returncode == 7
    assert "WINDLASS_ATTEMPT=1\n" in done.stdout
    assert "WINDLASS_ATTEMPT=2\n" in failed.output()
    assert (tmp_path / "here/work/in/word").read_text() == "word\n"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(failed: Failed, tmp_path: Path) -> None:
    done = failed.replay("--dry-run", where=tmp_path)
    assert done.returncode == 0
    assert re.search(r"t/1 of job-\w+, attempt 2, on default-0: FAILED, exit code 7", done.stderr)
    assert "command: /bin/sh -c './run.sh in/word'" in done.stderr
    assert "input: oss://bucket/in/ as work/in" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_runs_in_an_empty_folder_with_an_empty_environment(failed: Failed, tmp_path: Path) -> None:
    made = failed.replay("--export", str(tmp_path / "failure.tar.gz"), where=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "failure.tar.gz").stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["tar", "xzf", "../failure.tar.gz"], cwd=elsewhere, check=True)
    (folder,) = elsewhere.iterdir()
    done = subprocess.run(
        ["/bin/sh", str(folder / "run.sh")],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (7, failed.output()), done.stderr
    assert (folder / "recorded/stdout").read_text() == failed.output()
    assert (folder / "recorded/stderr").read_text() == "to stderr\n"
    assert "FAILED, exit code 7" in (folder / "README.md").read_text()
    assert failed.system.s3.profile().secret_key not in (folder / "replay.json").read_text()


@pytest.mark.parametrize(
    ("job", "arguments", "says"),
    [
        ("", ["--attempt", "9"], "has had no attempt 9 yet"),
        ("last/other", [], "has no task 'other'"),
        ("last/t/2", [], "its last one is 1"),
        ("last/t/x", [], "must be JOB, JOB/TASK or JOB/TASK/INDEX"),
        ("", ["--directory", "full"], "is not empty"),
    ],
)
def test_what_cannot_be_replayed_is_told(
    job: str, arguments: list[str], says: str, failed: Failed, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = failed.replay(*arguments, where=tmp_path, job=job)
    assert done.returncode == 1
    assert says in done.stderr
    assert json.dumps(done.stdout) == '""'
