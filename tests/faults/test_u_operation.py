"""Upgrades, settings, drains, retention, the doctor (U01-U09)."""

import asyncio
import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.integration.admin.test_migrations import (
    make_database_of_the_first_version,
    revision_of,
    tables_of,
)
from tests.support.operator import contents, coordinator_verb
from tests.support.raw_calls import raw_calls
from tests.support.world import World
from windlass_coordinator.stores.schema.migrations import known_revisions
from windlass_proto.errors import Conflict, NotFound
from windlass_proto.model.states import AttemptState, JobState, NodeState
from windlass_proto.v1 import agent_pb2 as wire

AGENTS = "/windlass.v1.AgentService/"
CANNOT_START = 2


def in_database(world: World, statement: str) -> None:
    with closing(sqlite3.connect(world.coordinator.database)) as db:
        db.execute(statement)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@scenario("U01")
async def test_u01_commands_go_on_while_the_coordinator_is_replaced_and_an_older_one_refuses(
    world: World, profile: FaultProfile
) -> None:
    """A next version is played by a schema that this one does not know."""
    count = profile.of(quick=4, full=20)
    await world.start(slots=count)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, instances=count))
    await world.until_started(job, count)
    (agent,) = world.agents
    keepers = agent.keepers()
    assert await asyncio.to_thread(world.coordinator.terminate) == 0
    in_database(world, "UPDATE alembic_version SET version_num = '9999'")
    before = _database_of(world)
    world.coordinator.spawn()
    assert await asyncio.to_thread(world.coordinator.exit_code) == CANNOT_START
    assert "newer" in world.coordinator.said or "unknown to this version" in world.coordinator.said
    assert _database_of(world) == before
    in_database(world, f"UPDATE alembic_version SET version_num = '{known_revisions()[-1]}'")
    world.coordinator.start()
    await world.until_ready(agent)
    assert agent.keepers() == keepers
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    for instance in await world.instances(job):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
    assert len(world.ledger.starts(job)) == count


def _database_of(world: World) -> dict[str, str]:
    everything = contents(world.coordinator.data)
    return {name: digest for name, digest in everything.items() if name.startswith("windlass.db")}


@scenario("U02")
async def test_u02_an_agent_that_says_less_or_more_than_this_version_works_or_is_refused_clearly(
    world: World,
) -> None:
    """An older one leaves out what came later; a newer one sends fields and numbers that are unknown here."""
    await world.start(agents=0)
    newer = b"\xfa\x3f\x05later"  # a field of number 1023
    facts = wire.NodeFacts(name="node", slots=1, cpu=1, memory_bytes=1 << 30)
    token, _ = await world.client.create_join_token()
    async with raw_calls(world) as strangers:
        joining = wire.JoinRequest(token=token, facts=facts)
        joined = wire.JoinReply.FromString(
            await strangers.ask(AGENTS + "Join", joining.SerializeToString() + newer, metadata=())
        )
    async with raw_calls(world, token=joined.credential) as calls:
        opening = wire.OpenSessionRequest(
            node_id=joined.node_id, state_id="other", boot_id="boot", facts=facts
        )
        opened = wire.OpenSessionReply.FromString(
            await calls.ask(AGENTS + "OpenSession", opening.SerializeToString() + newer)
        )
        session = wire.SessionRef(node_id=joined.node_id, node_epoch=opened.node_epoch, nonce=opened.nonce)
        job = await world.submit(world.task("true"))
        poll = wire.PollRequest(session=session, poll_seq=1, want=1)
        (batch,) = wire.PollReply.FromString(
            await calls.ask(AGENTS + "Poll", poll.SerializeToString() + newer)
        ).batches
        ref = {"index": batch.index[0], "attempt": batch.attempt[0], "fence": batch.fence[0]}

        async def report(*, event: wire.AttemptEvent) -> wire.ReportReply:
            told = wire.ReportRequest(
                session=session, tasks=[wire.TaskEvents(task_key=batch.task_key, events=[event])]
            )
            return wire.ReportReply.FromString(
                await calls.ask(AGENTS + "Report", told.SerializeToString() + newer)
            )

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await report(event=wire.AttemptEvent(seq=2, **ref))  # of a kind that is unknown here
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "may be a newer version" in (refused.value.details() or "")
        strange = wire.InventoryItem(
            ref=wire.AttemptRef(task_key=batch.task_key, **ref),
            phase=99,  # type: ignore[arg-type]  # a number of a later version
        )
        opening.inventory.append(strange)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls.ask(AGENTS + "OpenSession", opening.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        bare = wire.HeartbeatRequest(session=session, hb_seq=1)
        assert wire.HeartbeatReply.FromString(
            await calls.ask(AGENTS + "Heartbeat", bare.SerializeToString())
        ).timing.HasField("lease")
        reply = await report(event=wire.AttemptEvent(seq=3, exited=wire.Exited(code=0), **ref))
        assert list(reply.verdicts) == [wire.EVENT_VERDICT_ACCEPTED]
    assert (await world.wait(job)).state is JobState.SUCCEEDED


@scenario("U03")
async def test_u03_a_kill_during_a_migration_leaves_the_old_schema_or_the_new_one(
    world: World, profile: FaultProfile
) -> None:
    database = world.coordinator.database
    steps = len(known_revisions()) - 1
    for step in profile.of(quick=[1], full=list(range(1, steps + 1))):
        for left in world.coordinator.data.glob("windlass.db*"):
            left.unlink()
        world.coordinator.data.mkdir(mode=0o700, exist_ok=True)
        make_database_of_the_first_version(database)
        before = tables_of(world.coordinator.data)
        world.coordinator.spawn(failpoint=f"coord.migrate.after_step:{step}")
        assert await asyncio.to_thread(world.coordinator.exit_code) == -signal.SIGKILL
        assert (revision_of(world.coordinator.data), tables_of(world.coordinator.data)) == ("0001", before)
    world.coordinator.start()
    assert revision_of(world.coordinator.data) == known_revisions()[-1]
    (job,) = [job async for job in world.client.list()]
    assert (job.name, job.state) == ("old", JobState.RUNNING)


@scenario("U04", quick=False)
async def test_u04_what_outlasts_a_drain_goes_elsewhere_at_no_cost_and_nothing_new_comes(
    world: World,
) -> None:
    await world.start(agents=2, slots=1)
    gate = world.gate()
    job = await world.submit(world.task(f"[ $WINDLASS_ATTEMPT -gt 1 ] || {{ {gate.wait}; }}"))
    await world.until_started(job)
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (drained,) = [agent for agent in world.agents if agent.name == attempt.node_name]
    await world.client.drain_node(drained.name, within=timedelta(seconds=1))
    await world.until_node(drained, NodeState.DRAINED)
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.SUCCEEDED)
    assert second.node_name != drained.name
    (instance,) = await world.instances(job)
    assert instance.user_failures == 0
    later = [await world.submit("true") for _ in range(4)]
    for one in later:
        assert (await world.wait(one)).state is JobState.SUCCEEDED
        assert [attempt.node_name for attempt in await world.attempts(one)] == [second.node_name]
    await world.client.resume_node(drained.name)
    await world.until_node(drained, NodeState.READY)


@scenario("U05")
async def test_u05_a_cluster_with_work_or_nodes_is_not_deleted(world: World) -> None:
    await world.start(agents=0)
    agent = await world.add_agent(slots=1, cluster="other")
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, cluster="other"))
    await world.until_started(job)
    with pytest.raises(Conflict, match="still has"):
        await world.client.delete_cluster("other")
    assert (await world.client.get(job)).state is JobState.RUNNING
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    with pytest.raises(Conflict, match="still has"):
        await world.client.delete_cluster("other")
    assert agent.is_running


@scenario("U05")
async def test_u05_a_cluster_that_is_deleted_by_force_gives_its_work_back(world: World) -> None:
    raise NotRun("clusters cannot be deleted by force yet: it comes with their life cycle")


@scenario("U06")
@pytest.mark.parametrize("program", ["coordinator", pytest.param("agent", marks=pytest.mark.full_only)])
async def test_u06_with_wrong_settings_nothing_starts_and_the_place_is_named(
    world: World, program: str
) -> None:
    module, own = {
        "coordinator": ("windlass_coordinator.app", ["--data", str(world.directory / "new")]),
        "agent": ("windlass_agent.daemon", ["--state", str(world.directory / "new"), "--coordinator", "x:1"]),
    }[program]
    section, key = {"coordinator": ("lease", "replace_after"), "agent": ("work", "kill_grace")}[program]
    file = world.directory / "settings.toml"
    for text, named in (
        (f"[{section}\n", ["line 1"]),
        (f"[{section}]\nno_such_key = 1\n", [f"{section}.no_such_key"]),
        (f'[{section}]\n{key} = "5 parsecs"\n', [f"{section}.{key}", "5 parsecs"]),
        (f"[{section}]\n{key} = true\n", [f"{section}.{key}"]),
        ("[nothing]\nx = 1\n", ["nothing"]),
    ):
        file.write_text(text)
        code, said = await _run(world, module, *own, "--config", str(file))
        assert (code == 0, "Traceback" in said) == (False, False), said
        for name in (*named, "settings.toml"):
            assert name in said, (text, said)
    code, said = await _run(world, module, *own, "--config", str(world.directory / "none.toml"))
    assert (code == 0, "none.toml" in said) == (False, True), said
    assert not (world.directory / "new" / "windlass.db").exists()


async def _run(world: World, module: str, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=world.coordinator.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@scenario("U07", quick=False)
@pytest.mark.parametrize("failpoint", ["", "coord.retain.before_commit", "coord.retain.after_commit"])
async def test_u07_retention_takes_finished_jobs_whole_and_no_other(world: World, failpoint: str) -> None:
    """With readers that list all the while, and killed in the middle."""
    await world.start(slots=2)
    old = [await world.submit(world.task("echo x", instances=5)) for _ in range(4)]
    for job in old:
        assert (await world.wait(job)).state is JobState.SUCCEEDED
    gate = world.gate()
    live = await world.submit(world.task(gate.wait))
    await world.until_started(live)
    await asyncio.to_thread(world.coordinator.terminate)
    world.forget_history()
    world.coordinator.settings |= {
        "RETENTION_FINISHED_JOBS": "1ms",
        "RETENTION_DELETED_JOBS": "1ms",
        "RETENTION_SWEEP_EVERY": "200ms",
    }
    if failpoint:
        world.coordinator.spawn(failpoint=failpoint)
        assert await asyncio.to_thread(world.coordinator.exit_code) == -signal.SIGKILL
        assert coordinator_verb("doctor", "--data", world.coordinator.data).returncode == 0
    world.coordinator.start()

    async def only_the_live_one_is_left() -> bool:
        found = [job.job_id async for job in world.client.list()]
        for job in found:
            try:
                indexes = [one.index for one in await world.instances(job)]
            except NotFound:  # removed between the two calls
                continue
            assert indexes in ([], [0], list(range(5)))
        return found == [live]

    await world.until(only_the_live_one_is_left)
    world.forget_history()
    gate.open()
    await world.until_ready(*world.agents)
    await world.until(lambda: not world.agents[0].attempts())


@scenario("U08", quick=False)
async def test_u08_late_reports_of_a_former_generation_change_nothing(world: World) -> None:
    await world.start(slots=1)
    old = world.agents[0]
    gate = world.gate()
    job = await world.submit(world.task(f"[ $WINDLASS_ATTEMPT -gt 1 ] || {{ {gate.wait}; exit 7; }}"))
    await world.until_started(job)
    await world.until_running(job)
    old.pause()
    await world.stop(job)
    assert (await world.wait(job)).state is JobState.STOPPED
    await world.add_agent(slots=1)
    assert (await world.client.restart(job)).generation == 2
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    gate.open()
    old.resume()
    await world.until_ready(old)
    await world.until(lambda: not old.attempts())
    status = await world.client.get(job)
    assert (status.state, status.generation) == (JobState.SUCCEEDED, 2)
    assert (await world.attempts(job))[-1].state is AttemptState.SUCCEEDED


@scenario("U08")
async def test_u08_nothing_starts_after_an_acknowledged_stop(world: World, profile: FaultProfile) -> None:
    await world.start(agents=0)
    # No job may have ended before it is stopped: each has work for seconds.
    count = profile.of(quick=4, full=40)
    jobs = [await world.submit(world.task("sleep 0.2", instances=200)) for _ in range(count)]
    for job in jobs[::2]:
        await world.stop(job)
    await world.add_agent(slots=4)
    for job in jobs[1::2]:
        await world.stop(job)
        known = len(world.ledger.starts(job))
        held = len([one for one in await world.instances(job) if not one.state.is_terminal])
        assert (await world.wait(job)).state is JobState.STOPPED
        assert len(world.ledger.starts(job)) <= known + held
    for job in jobs[::2]:
        assert world.ledger.starts(job) == []
        assert (await world.client.get(job)).state is JobState.STOPPED


def _whole(data: Path) -> None:
    """Nothing is wrong with it."""


def _half(data: Path) -> None:
    whole = (data / "windlass.db").read_bytes()
    (data / "windlass.db").write_bytes(whole[: len(whole) // 2])


def _empty(data: Path) -> None:
    (data / "windlass.db").write_bytes(b"")


def _newer(data: Path) -> None:
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()


def _miscounted(data: Path) -> None:
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        db.execute("UPDATE tasks SET succeeded = succeeded + 3")
        db.commit()


@scenario("U09", quick=False)
async def test_u09_the_doctor_tells_the_whole_store_from_each_damaged_one_and_touches_none(
    world: World, profile: FaultProfile
) -> None:
    await world.start()
    job = await world.submit(world.task("echo x", instances=3))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert (await _diagnosis(world, world.coordinator.data))[0] == 0, "while it runs"
    world.look()
    await world.until(lambda: not world.agents[0].attempts())
    await asyncio.to_thread(world.agents[0].end, signal.SIGINT)
    assert await asyncio.to_thread(world.coordinator.terminate) == 0
    damages: list[Callable[[Path], None]] = profile.of(
        quick=[_whole, _half], full=[_whole, _half, _empty, _newer, _miscounted]
    )
    for damage in damages:
        copy = world.directory / f"copy{damage.__name__}"
        shutil.copytree(world.coordinator.data, copy)
        damage(copy)
        before = contents(copy)
        code, findings = await _diagnosis(world, copy)
        problems = [finding for finding in findings if finding["health"] == "problem"]
        assert (code, bool(problems)) == ((0, False) if damage is _whole else (1, True)), (damage, problems)
        assert all(finding["do"] for finding in problems)
        assert contents(copy) == before


async def _diagnosis(world: World, data: Path) -> tuple[int, list[dict[str, str]]]:
    done = await asyncio.to_thread(coordinator_verb, "doctor", "--data", data, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]
