"""What agents and the coordinator say to each other, word for word.

Each conversation is compared with the `.txt` file of its name beside this one. When the protocol changes on
purpose, write them anew (see `tests.support.transcript`) and review the difference like code.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.transcript import SpokenAgent, Transcript, exited, started, stopped_early
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import clusters_pb2, jobs_pb2

HERE = Path(__file__).parent


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    # No back-off ends while two of them talk.
    with CoordinatorProcess(tmp_path / "data", RETRY_BASE="1h", RETRY_CEILING="1h") as coordinator:
        yield coordinator


@pytest.fixture
async def transcript(
    coordinator: CoordinatorProcess, request: pytest.FixtureRequest
) -> AsyncIterator[Transcript]:
    """Compared with its reviewed file when the test has said all."""
    transcript = Transcript(coordinator)
    yield transcript
    await transcript.close()
    transcript.compare(HERE / f"{request.node.name.removeprefix('test_')}.txt")


@pytest.fixture
async def agent(transcript: Transcript) -> SpokenAgent:
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    return agent


def running(ref: wire.AttemptRef) -> wire.InventoryItem:
    return wire.InventoryItem(ref=ref, phase=wire.ATTEMPT_PHASE_RUNNING, seq=2)


def ended(ref: wire.AttemptRef) -> wire.InventoryItem:
    return wire.InventoryItem(ref=ref, phase=wire.ATTEMPT_PHASE_ENDED, seq=3, has_exit=True)


async def test_a_node_joins_and_runs_its_first_job(transcript: Transcript) -> None:
    agent = SpokenAgent(transcript, "agent")
    token = await transcript.ask("CreateJoinToken", clusters_pb2.CreateJoinTokenRequest())
    await agent.join(token.token)
    await agent.open_session()
    job = await transcript.submit(instances=2)
    first, second = await agent.poll()
    await agent.report((first, started()), (second, exited(7)))
    await agent.report((first, exited(0)))
    await agent.heartbeat(first, second)
    await agent.poll(wait_s=0)
    await transcript.note_job(job)


async def test_a_lost_reply_to_a_poll_is_said_again(transcript: Transcript, agent: SpokenAgent) -> None:
    await transcript.submit(instances=3)
    refs = await agent.poll()
    transcript.note("The reply is lost on its way; the agent repeats the poll with the same number.")
    assert await agent.poll(again=True) == refs
    await agent.report((refs[0], started()))
    await agent.poll()


async def test_what_an_empty_node_was_given_comes_back_with_its_next_poll(
    transcript: Transcript, agent: SpokenAgent
) -> None:
    job = await transcript.submit()
    (lost,) = await agent.poll()
    transcript.note("The reply is lost on its way, and the agent does not repeat the poll.")
    (again,) = await agent.poll(is_empty=True)
    assert (again.index, again.attempt) == (lost.index, 2)
    await agent.report((again, exited(0)))
    await transcript.note_job(job)


async def test_an_agent_that_restarts_lists_what_it_has(transcript: Transcript, agent: SpokenAgent) -> None:
    job = await transcript.submit(instances=4)
    first, second, third, fourth = await agent.poll(want=4)
    await agent.report((first, started()), (second, started()), (third, started()))
    transcript.note("The agent is killed; meanwhile `second` exits. It starts again and has lost `third`.")
    await agent.open_session(running(first), ended(second))
    await agent.report((first, exited(0)), (second, exited(0)))
    transcript.note("What it never mentioned comes back: `fourth` at once, `third` after a pause.")
    (again,) = await agent.poll()
    assert (again.index, again.attempt) == (fourth.index, 2)
    await transcript.note_job(job)


async def test_a_session_outlives_a_killed_coordinator(transcript: Transcript, agent: SpokenAgent) -> None:
    job = await transcript.submit(instances=3)
    refs = await agent.poll()
    await transcript.restart_coordinator()
    transcript.note("The agent never saw the reply and repeats its poll.")
    assert await agent.poll(again=True) == refs
    await agent.report((refs[0], exited(0)), (refs[1], exited(0)))
    await transcript.restart_coordinator()
    transcript.note("Nor did it see the verdicts, so it repeats its report.")
    await agent.report((refs[0], exited(0)), (refs[1], exited(0)))
    await agent.heartbeat()
    (last,) = await agent.poll()
    await agent.report((last, exited(0)))
    await transcript.note_job(job)


async def test_a_stop_reaches_a_parked_poll(transcript: Transcript, agent: SpokenAgent) -> None:
    job = await transcript.submit(instances=2)
    first, second = await agent.poll()
    await agent.report((first, started()))
    waiting = agent.begin_poll()
    await transcript.ask("StopJob", jobs_pb2.StopJobRequest(job_id=job))
    transcript.note(f"A user stops {job}.")
    await waiting.answer()
    await transcript.note_job(job)
    await agent.heartbeat()
    await agent.report((first, exited(143, stopped=True, kind="")), (second, stopped_early()))
    await transcript.note_job(job)
    await agent.heartbeat()


async def test_a_fenced_attempt_is_superseded(transcript: Transcript, agent: SpokenAgent) -> None:
    other = SpokenAgent(transcript, "other agent")
    await other.enter()
    job = await transcript.submit()
    (old,) = await agent.poll()
    transcript.note("The agent opens a session without it, so the attempt goes to the other agent.")
    await agent.open_session()
    (new,) = await other.poll()
    assert (new.attempt, new.fence > old.fence) == (2, True)
    await agent.report((old, exited(0)))
    await agent.open_session(ended(old))
    await other.report((new, exited(0)))
    await transcript.note_job(job)


async def test_a_node_acts_for_itself_only(transcript: Transcript, agent: SpokenAgent) -> None:
    other = SpokenAgent(transcript, "other agent")
    await other.enter()
    await transcript.submit()
    (ref,) = await other.poll()
    transcript.note("The agent reports and gives back what is the other's.")
    await agent.report((ref, exited(0)))
    await agent.say("Release", wire.ReleaseRequest(session=agent.session, refs=[ref]))
    transcript.note("It presents the other's session with its own credential.")
    await agent.say("Poll", wire.PollRequest(session=other.session, poll_seq=1, want=1))
    await agent.say("Heartbeat", wire.HeartbeatRequest(session=other.session))
    await agent.say("OpenSession", wire.OpenSessionRequest(node_id=other.node_id, last_nonce=other.nonce))
    transcript.note("It acts as a user.")
    await agent.say("ListJobs", jobs_pb2.ListJobsRequest())
    transcript.note("It shows no credential, and one that nobody ever got.")
    await agent.say("Heartbeat", wire.HeartbeatRequest(session=agent.session), credential="")
    await agent.say("Heartbeat", wire.HeartbeatRequest(session=agent.session), credential="nonsense")
    transcript.note("All that changed nothing for the other.")
    await other.report((ref, exited(0)))


async def test_only_the_newest_session_of_a_node_counts(transcript: Transcript, agent: SpokenAgent) -> None:
    first = agent.session
    await agent.open_session()
    await agent.heartbeat()
    transcript.note("A call of the first session comes late.")
    await agent.say("Poll", wire.PollRequest(session=first, poll_seq=1, want=1))
    transcript.note("A copy of the node, made before the second session, opens one of its own.")
    agent.nonce, newest = first.nonce, agent.nonce
    await agent.open_session()
    transcript.note("The node itself goes on.")
    agent.nonce = newest
    await agent.heartbeat()


async def test_a_join_token_is_good_once(transcript: Transcript) -> None:
    token = await transcript.ask("CreateJoinToken", clusters_pb2.CreateJoinTokenRequest())
    await SpokenAgent(transcript, "agent").join(token.token)
    await SpokenAgent(transcript, "second agent").join(token.token)
    transcript.note("A damaged token.")
    await SpokenAgent(transcript, "second agent").join("wlj_damaged")


async def test_a_coordinator_that_goes_down_says_so(
    transcript: Transcript, agent: SpokenAgent, coordinator: CoordinatorProcess
) -> None:
    await agent.heartbeat()
    waiting = agent.begin_poll()
    await transcript.wait_until_parked(polls=1)
    coordinator.ask_to_end()
    transcript.note("The coordinator is asked to end (SIGTERM).")
    await waiting.answer()
    assert coordinator.exit_code() == 0


async def test_a_node_leaves_for_good(transcript: Transcript, agent: SpokenAgent) -> None:
    await transcript.submit(instances=2)
    refs = await agent.poll()
    await agent.report((refs[0], exited(0)))
    await agent.say("Release", wire.ReleaseRequest(session=agent.session, refs=refs))
    await agent.say("Leave", wire.LeaveRequest(session=agent.session))
