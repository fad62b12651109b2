"""Jobs reach object stores with keys that only the coordinator has, and the keys are seen nowhere else."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.agent_system import DEADLINE_S, AgentUnderTest, SystemUnderTest, a_job, until, until_exists
from tests.support.s3_server import S3Server
from windlass import Client, JobId, JobSpec, JobStatus, TaskName
from windlass_coordinator.admin.backup import back_up
from windlass_proto.errors import Conflict, InvalidJob, InvalidRequest, NotFound
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.secrets import Login, SecretKind
from windlass_proto.model.specs import InputMapping, OutputMapping
from windlass_proto.model.states import JobState
from windlass_proto.model.storage import StorageProfile


async def put(system: SystemUnderTest, name: str, profile: StorageProfile) -> None:
    async with system.client() as client:
        await client.put_secret(name, profile)


async def an_agent(system: SystemUnderTest) -> AgentUnderTest:
    """One for all tests: starting it is most of what each would take."""
    return system.agents[0] if system.agents else await system.start_agent("all")


async def end_of(client: Client, job_id: JobId) -> JobStatus:
    async with asyncio.timeout(DEADLINE_S):
        return await client.wait(job_id)


async def test_a_job_reads_and_writes_with_keys_that_only_the_coordinator_has(
    system: SystemUnderTest, closed: S3Server
) -> None:
    closed.put("bucket/in/a.txt", "a\n")
    await an_agent(system)
    await put(system, "closed", closed.profile())

    ended = await system.run(
        "all",
        "cat in/a.txt; cp in/a.txt out/b.txt",
        storage="closed",
        stdout="oss://bucket/logs/",
        inputs=(InputMapping(source="oss://bucket/in/", destination="in"),),
        outputs=(OutputMapping(source="out", destination="s3://bucket/out/"),),
    )

    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, "")
    assert await system.log(ended.job_id) == b"a\n"
    assert closed.get("bucket/out/b.txt") == b"a\n"
    assert closed.get(f"bucket/logs/stdout.{ended.job_id}.t.0") == b"a\n"


async def test_a_mapping_with_a_storage_of_its_own_goes_there_and_the_rest_to_the_nodes(
    system: SystemUnderTest, closed: S3Server
) -> None:
    closed.put("bucket/own/a.txt", "stored\n")
    await an_agent(system)
    await put(system, "closed", closed.profile())

    ended = await system.run(
        "all",
        "cp in/a.txt out/a.txt",
        inputs=(InputMapping(source="oss://bucket/own/", destination="in", storage="closed"),),
        outputs=(OutputMapping(source="out", destination="oss://bucket/from-mixed/"),),
    )

    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, "")
    assert system.s3.get("bucket/from-mixed/a.txt") == b"stored\n"
    assert not (closed.root / "bucket/from-mixed").exists()


async def test_results_are_uploaded_by_an_agent_that_was_started_after_the_command(
    system: SystemUnderTest, closed: S3Server, tmp_path: Path
) -> None:
    agent = await an_agent(system)
    await put(system, "closed", closed.profile())
    given = (OutputMapping(source="out", destination="oss://bucket/late/"),)
    wait = f"touch {tmp_path}/began; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo x > out/x"
    async with system.client() as client:
        job_id = await client.submit(a_job("all", wait, storage="closed", outputs=given))
        await until_exists(tmp_path / "began")
        agent.process.kill()
        agent.process.wait(30)
        (tmp_path / "go").touch()
        agent.start_again()
        assert (await end_of(client, job_id)).state is JobState.SUCCEEDED
    assert closed.get("bucket/late/x") == b"x\n"


async def test_wrong_keys_are_the_users_mistake_told_without_them_and_tried_once(
    system: SystemUnderTest, closed: S3Server
) -> None:
    agent = await an_agent(system)
    wrong = replace(closed.profile(), access_key="id-canary-17", secret_key="canary-of-wrong-keys")
    await put(system, "wrong", wrong)

    ended = await system.run(
        "all",
        "true",
        inputs=(InputMapping(source="oss://bucket/in/", destination="in", storage="wrong"),),
    )

    (instance,) = ended.instances
    assert ended.state is JobState.FAILED
    assert [(tried.failure, tried.attempt) for tried in instance.attempts] == [(FailureKind.USER_CONFIG, 1)]
    told = ended.reason + "".join(tried.reason for tried in instance.attempts)
    assert "oss://bucket/in/" in told
    assert "canary" not in told + agent.said


async def test_a_name_that_is_not_stored_is_refused_at_submit(system: SystemUnderTest) -> None:
    async with system.client() as client:
        await client.put_secret("registry", Login(username="me", password="hush"))
    with pytest.raises(InvalidJob) as refused:
        await system.run(
            "default",
            "true",
            storage="nothing-like-it",
            inputs=(InputMapping(source="oss://bucket/in/", destination="in", storage="registry"),),
        )
    assert [problem.path for problem in refused.value.problems] == [
        "tasks.t.storage",
        "tasks.t.inputs[0].storage",
    ]


async def test_what_was_deleted_while_a_job_needs_it_fails_the_attempt_with_its_name(
    system: SystemUnderTest, closed: S3Server, tmp_path: Path
) -> None:
    await an_agent(system)
    await put(system, "brief", closed.profile())
    (first,) = a_job("all", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done").tasks
    taken = InputMapping(source="oss://bucket/in/", destination="in", storage="brief")
    then = replace(first, name=TaskName("then"), after=(first.name,), inputs=(taken,))
    async with system.client() as client:
        job_id = await client.submit(JobSpec(name="test", tasks=(first, then)))
        await client.delete_secret("brief")
        (tmp_path / "go").touch()
        assert (await end_of(client, job_id)).state is JobState.FAILED
        (instance,) = [one async for one in client.instances(job_id, "then", all_attempts=True)]
    assert [(tried.failure, tried.reason) for tried in instance.attempts] == [
        (FailureKind.USER_CONFIG, "inputs[0].storage: there is no stored storage 'brief' any more")
    ]


async def test_values_go_in_and_names_come_out(system: SystemUnderTest) -> None:
    async with system.client() as client:
        put_at = (await client.put_secret("login", Login(username="me", password="hush"))).changed_at
        changed = await client.put_secret("login", Login(username="me", password="other"))
        assert changed.changed_at >= put_at
        listed = {secret.name: secret for secret in await client.secrets()}
        assert listed["login"].kind is SecretKind.LOGIN
        assert "hush" not in repr(listed)
        await client.delete_secret("login")
        assert "login" not in [secret.name for secret in await client.secrets()]
        with pytest.raises(NotFound, match="there is no stored secret 'login'"):
            await client.delete_secret("login")
        with pytest.raises(InvalidRequest, match="name: must begin with a letter or digit"):
            await client.put_secret("a/b", Login(username="me", password="hush"))


async def test_the_keys_are_in_no_process_list_environment_log_or_file(
    system: SystemUnderTest, closed: S3Server, tmp_path: Path
) -> None:
    """Of coordinator, agent, keeper and command, while the command runs and afterwards."""
    agent = await an_agent(system)
    await put(system, "closed", closed.profile())
    secret = closed.profile().secret_key.encode()
    wait = f"env; touch {tmp_path}/began; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    async with system.client() as client:
        job_id = await client.submit(
            a_job(
                "all",
                wait,
                storage="closed",
                stdout="oss://bucket/leaks/",
                inputs=(InputMapping(source="oss://bucket/in/", destination="in"),),
            )
        )
        await until_exists(tmp_path / "began")
        seen = dict(_process_lists())
        files = dict(_files(agent.state)) | dict(_files(system.directory / "coordinator"))
        (tmp_path / "go").touch()
        assert (await end_of(client, job_id)).state is JobState.SUCCEEDED
    files |= {f"after {name}": data for name, data in _files(agent.state)}
    files |= {f"after {name}": data for name, data in _files(system.directory / "coordinator")}
    back_up(system.directory / "coordinator", tmp_path / "backup", with_logs=True)
    backup = dict(_files(tmp_path / "backup"))
    files |= backup
    files["coordinator's log"] = (system.directory / "coordinator.log").read_bytes()
    files["agent's log"] = agent.said.encode()

    assert any(b"windlass_agent" in line for line in seen.values())
    assert len(files) > 10
    key = (system.directory / "coordinator/master.key").read_bytes().strip()
    assert [name for name, data in backup.items() if key in data or bytes.fromhex(key.decode()) in data] == []
    assert [name for name, data in (seen | files).items() if secret in data] == []


def _process_lists() -> Iterator[tuple[str, bytes]]:
    """Arguments and environment of all that runs here, mounts too; but the tests' S3 server is
    told its keys by its command line."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            arguments = (process / "cmdline").read_bytes()
            if b"serve\0s3" not in arguments:
                yield f"arguments of {process.name}", arguments
            yield f"environment of {process.name}", (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in root.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()
        except OSError:
            continue  # it was removed


async def test_results_wait_for_a_coordinator_that_is_away_when_the_command_ends(
    system: SystemUnderTest, closed: S3Server, tmp_path: Path
) -> None:
    agent = await an_agent(system)
    await put(system, "closed", closed.profile())
    given = (OutputMapping(source="out", destination="oss://bucket/waited/"),)
    wait = f"touch {tmp_path}/began; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo x > out/x"
    async with system.client() as client:
        job_id = await client.submit(a_job("all", wait, storage="closed", outputs=given))
    await until_exists(tmp_path / "began")
    system.kill_coordinator()
    said = len(agent.said)
    (tmp_path / "go").touch()

    async def has_tried() -> bool:
        return "call.failed" in agent.said[said:]

    await until(has_tried)
    system.start_coordinator()
    async with system.client() as client:
        assert (await end_of(client, job_id)).state is JobState.SUCCEEDED
    assert closed.get("bucket/waited/x") == b"x\n"


async def test_what_was_changed_in_the_database_opens_nothing_nor_does_another_master_key(
    system: SystemUnderTest, closed: S3Server
) -> None:
    await an_agent(system)
    for name in ("closed", "moved"):
        await put(system, name, closed.profile())
    key = system.directory / "coordinator/master.key"
    right = key.read_text()
    system.kill_coordinator()
    with sqlite3.connect(system.directory / "coordinator/windlass.db") as database:
        sealed = "(SELECT sealed FROM secrets WHERE name = 'closed')"
        database.execute(f"UPDATE secrets SET sealed = {sealed} WHERE name = 'moved'")
    database.close()
    key.write_text("0" * 64 + "\n")
    system.start_coordinator()
    async with system.client() as client:
        with pytest.raises(Conflict, match="under a master key that this coordinator does not have"):
            await client.put_secret("other", closed.profile())
    system.kill_coordinator()
    key.write_text(right)
    system.start_coordinator()

    ended = await system.run("all", "true", storage="moved", stdout="oss://bucket/m/")
    assert ended.state is JobState.FAILED
    assert [(tried.failure, tried.reason) for tried in ended.instances[0].attempts] == [
        (FailureKind.USER_CONFIG, "the stored secret 'moved' was changed in the database: put it again")
    ]
    await put(system, "moved", closed.profile())
    assert (
        await system.run("all", "true", storage="moved", stdout="oss://bucket/m/")
    ).state is JobState.SUCCEEDED


def test_values_come_from_standard_input_and_are_in_nothing_that_the_command_says(
    system: SystemUnderTest, closed: S3Server, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.toml"
    token = system.directory / "coordinator/admin.token"
    profile.write_text(f'coordinator = "{system.address}"\ntoken_file = "{token}"\n')

    def windlass(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        command = [
            str(Path(sys.executable).with_name("windlass")),
            "--profile",
            str(profile),
            "secret",
            *words,
        ]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)

    document = {"endpoint": closed.endpoint, "access_key": "id", "secret_key": closed.secret}
    stored = windlass("put", "by-hand", "--from", "-", "--json", given=json.dumps(document))
    assert (stored.returncode, json.loads(stored.stdout)["kind"]) == (0, "storage")
    listed = windlass("list")
    assert "by-hand" in listed.stdout
    refused = windlass("put", "by-hand", "--from", "-", given=json.dumps(document | {closed.secret: 1})[:-2])
    asked = windlass("put", "by-hand")
    assert (refused.returncode, asked.returncode) == (1, 1)
    assert refused.stderr == "error: standard input: must be a JSON object\n"
    assert "give the values as JSON with --from" in asked.stderr
    deleted = windlass("delete", "by-hand")
    assert (deleted.returncode, deleted.stdout) == (0, "by-hand deleted\n")
    said = [one.stdout + one.stderr for one in (stored, listed, refused, asked, deleted)]
    assert closed.secret not in "".join(said)
