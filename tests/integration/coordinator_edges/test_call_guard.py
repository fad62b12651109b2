# ruff: noqa: N802  (servicers carry the names of the contract)
"""The guard around every call, over a real gRPC server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from windlass_coordinator.auth.identity import (
    AdminIdentity,
    AgentIdentity,
    Authenticator,
    CredentialRecord,
    Identity,
    UserIdentity,
)
from windlass_coordinator.auth.tokens import RANDOM_BYTES, Token, TokenKind, new_token
from windlass_coordinator.rpc.interceptors import CallGuard, current_caller, current_node
from windlass_proto.errors import Conflict, InvalidJob, NotFound, Problem, WindlassError
from windlass_proto.model.ids import DEFAULT_CLUSTER, NodeId, NodeKey, TenantId
from windlass_proto.v1 import agent_pb2, agent_pb2_grpc, jobs_pb2, jobs_pb2_grpc

TENANT = TenantId("acme")
START = datetime(2026, 1, 1, tzinfo=UTC)
TOKENS = {
    kind: new_token(kind, randomness=bytes([number]) * RANDOM_BYTES) for number, kind in enumerate(TokenKind)
}
ERRORS: dict[str, Exception] = {
    "unknown": NotFound("there is no job unknown"),
    "busy": Conflict("job busy is running: stop it first"),
    "invalid": InvalidJob([Problem(path="tasks.a", message="must be >= 1 (is 0)")]),
    "bug": KeyError("secret detail"),
    "bare": WindlassError("secret detail"),
}


@dataclass
class Credentials:
    """A place of credentials as the coordinator's store is one, with a clock that the test moves."""

    records: dict[str, CredentialRecord] = field(default_factory=dict)
    seconds: float = 0.0
    looked_up: int = 0

    def add(self, token: Token, **more: Any) -> None:
        self.records[token.token_id] = CredentialRecord(
            kind=token.kind, token_id=token.token_id, digest=token.digest, tenant=TENANT, **more
        )

    async def find(self, token_id: str) -> CredentialRecord | None:
        self.looked_up += 1
        return self.records.get(token_id)

    def authenticator(self) -> Authenticator:
        return Authenticator(
            self.find, now=lambda: START + timedelta(seconds=self.seconds), clock=lambda: self.seconds
        )


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """Answers with who calls, or fails as the job id says."""

    seen: list[Identity]

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.JobStatus:
        self.seen.append(current_caller())
        if request.job_id in ERRORS:
            raise ERRORS[request.job_id]
        return jobs_pb2.JobStatus(job_id=request.job_id)

    async def WatchJob(
        self, request: jobs_pb2.GetJobRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.JobStatus]:
        self.seen.append(current_caller())
        yield jobs_pb2.JobStatus(job_id=request.job_id)
        if request.job_id in ERRORS:
            raise ERRORS[request.job_id]

    async def StopJob(self, request: jobs_pb2.StopJobRequest, context: Any) -> jobs_pb2.JobStatus:
        self.seen.append(current_node())
        return jobs_pb2.JobStatus()


class Agents(agent_pb2_grpc.AgentServiceServicer):
    """As Jobs, for nodes."""

    seen: list[Identity]

    async def Join(self, request: agent_pb2.JoinRequest, context: Any) -> agent_pb2.JoinReply:
        return agent_pb2.JoinReply(node_id="node-1")

    async def Leave(self, request: agent_pb2.LeaveRequest, context: Any) -> agent_pb2.LeaveReply:
        self.seen.append(current_node())
        return agent_pb2.LeaveReply()

    async def AppendLog(
        self, requests: AsyncIterator[agent_pb2.AppendLogRequest], context: Any
    ) -> AsyncIterator[agent_pb2.AppendLogReply]:
        self.seen.append(current_node())
        async for request in requests:
            if request.offset == 13:
                raise ERRORS["busy"]
            yield agent_pb2.AppendLogReply(durable_end=request.offset)


@dataclass
class Coordinator:
    """A running server and what it saw."""

    credentials: Credentials
    channel: grpc.aio.Channel
    seen: list[Identity]

    @property
    def jobs(self) -> "jobs_pb2_grpc.JobServiceAsyncStub":
        return jobs_pb2_grpc.JobServiceStub(self.channel)

    @property
    def agents(self) -> "agent_pb2_grpc.AgentServiceAsyncStub":
        return agent_pb2_grpc.AgentServiceStub(self.channel)


@asynccontextmanager
async def a_coordinator() -> AsyncIterator[Coordinator]:
    credentials = Credentials()
    credentials.add(TOKENS[TokenKind.ADMIN])
    credentials.add(TOKENS[TokenKind.USER])
    credentials.add(TOKENS[TokenKind.JOIN])
    credentials.add(
        TOKENS[TokenKind.NODE], node_id=NodeId("node-1"), node_key=NodeKey(1), cluster=DEFAULT_CLUSTER
    )
    seen: list[Identity] = []
    jobs, agents = Jobs(), Agents()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
    jobs.seen = agents.seen = seen
    server = grpc.aio.server(interceptors=(CallGuard(credentials.authenticator()),))
    jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("windlass.v1.Other", {"Do": _handler()}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Coordinator(credentials=credentials, channel=channel, seen=seen)
    finally:
        await server.stop(None)


def _handler() -> Any:
    async def do(request: bytes, context: Any) -> bytes:
        return b"done"

    return grpc.unary_unary_rpc_method_handler(do)


def as_(kind: TokenKind) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {TOKENS[kind].text}"),)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def a_job(job_id: str = "job-1") -> jobs_pb2.GetJobRequest:
    return jobs_pb2.GetJobRequest(job_id=job_id)


async def test_handlers_of_every_shape_learn_who_calls() -> None:
    async with a_coordinator() as here:
        await here.jobs.GetJob(a_job(), metadata=as_(TokenKind.ADMIN))
        watched = [one.job_id async for one in here.jobs.WatchJob(a_job(), metadata=as_(TokenKind.USER))]
        requests = iter([agent_pb2.AppendLogRequest(offset=n) for n in range(3)])
        appended = [
            one.durable_end async for one in here.agents.AppendLog(requests, metadata=as_(TokenKind.NODE))
        ]

    assert (watched, appended) == (["job-1"], [0, 1, 2])
    assert here.seen == [
        AdminIdentity(tenant=TENANT, credential_id=TOKENS[TokenKind.ADMIN].token_id),
        UserIdentity(tenant=TENANT, credential_id=TOKENS[TokenKind.USER].token_id),
        AgentIdentity(node_id=NodeId("node-1"), node_key=NodeKey(1), tenant=TENANT, cluster=DEFAULT_CLUSTER),
    ]


async def test_a_call_without_a_valid_token_is_refused() -> None:
    stranger = new_token(TokenKind.ADMIN, randomness=b"\xaa" * RANDOM_BYTES)
    text = TOKENS[TokenKind.ADMIN].text
    forged = new_token(
        TokenKind.ADMIN, randomness=bytes.fromhex(TOKENS[TokenKind.ADMIN].token_id) + b"\xaa" * 32
    )
    relabelled = new_token(TokenKind.ADMIN, randomness=bytes([1]) * RANDOM_BYTES)
    async with a_coordinator() as here:
        for header in ("", text, "Basic x", "Bearer ", f"Bearer {text[:-1]}"):
            code, _ = await refusal(here.jobs.GetJob(a_job(), metadata=(("authorization", header),)))
            assert code is grpc.StatusCode.UNAUTHENTICATED
        for token in (stranger, forged, relabelled):
            code, _ = await refusal(
                here.jobs.GetJob(a_job(), metadata=(("authorization", f"Bearer {token.text}"),))
            )
            assert code is grpc.StatusCode.UNAUTHENTICATED
        assert await refusal(here.jobs.GetJob(a_job())) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "no token: send the metadata `authorization: Bearer <token>`",
        )
    assert here.seen == []


async def test_each_kind_of_token_opens_its_own_methods_only() -> None:
    async with a_coordinator() as here:
        leave, get = agent_pb2.LeaveRequest(), a_job()
        codes = [
            await refusal(here.agents.Leave(leave, metadata=as_(TokenKind.ADMIN))),
            await refusal(here.agents.Leave(leave, metadata=as_(TokenKind.USER))),
            await refusal(here.jobs.GetJob(get, metadata=as_(TokenKind.NODE))),
        ]
        joining = await refusal(here.jobs.GetJob(get, metadata=as_(TokenKind.JOIN)))

    assert {code for code, _ in codes} == {grpc.StatusCode.PERMISSION_DENIED}
    assert joining[0] is grpc.StatusCode.UNAUTHENTICATED
    assert here.seen == []


async def test_a_handler_that_wants_a_node_does_not_get_a_user() -> None:
    async with a_coordinator() as here:
        refused = await refusal(here.jobs.StopJob(jobs_pb2.StopJobRequest(), metadata=as_(TokenKind.USER)))

    assert refused == (
        grpc.StatusCode.PERMISSION_DENIED,
        "only a node may do this: use a node's credential",
    )


async def test_joining_needs_no_credential() -> None:
    async with a_coordinator() as here:
        assert (await here.agents.Join(agent_pb2.JoinRequest())).node_id == "node-1"


async def test_a_method_that_the_table_does_not_name_is_refused_to_everybody() -> None:
    async with a_coordinator() as here:
        do: Any = here.channel.unary_unary("/windlass.v1.Other/Do")

        assert await refusal(do(b"", metadata=as_(TokenKind.ADMIN))) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "this method is not open to anybody",
        )


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_our_errors_reach_the_caller_with_code_and_sentence(stream: bool) -> None:
    async def call(here: Coordinator, job_id: str) -> None:
        if stream:
            async for _ in here.jobs.WatchJob(a_job(job_id), metadata=as_(TokenKind.USER)):
                pass
        else:
            await here.jobs.GetJob(a_job(job_id), metadata=as_(TokenKind.USER))

    async def fail(here: Coordinator, job_id: str) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(here, job_id)
        return caught.value

    async with a_coordinator() as here:
        unknown, busy = await fail(here, "unknown"), await fail(here, "busy")
        invalid = await fail(here, "invalid")

    assert (unknown.code(), unknown.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no job unknown",
    )
    assert (busy.code(), dict(busy.trailing_metadata())["windlass-error-code"]) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "CONFLICT",
    )
    assert json.loads(dict(invalid.trailing_metadata())["windlass-problems-bin"]) == [
        ["tasks.a", "must be >= 1 (is 0)"]
    ]


async def test_a_thousand_long_problems_still_arrive() -> None:
    ERRORS["hopeless"] = InvalidJob(
        [Problem(path=f"tasks.tâche{n}.command", message="é\n%" * 200) for n in range(1000)]
    )
    async with a_coordinator() as here:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.jobs.GetJob(a_job("hopeless"), metadata=as_(TokenKind.USER))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    problems = json.loads(dict(caught.value.trailing_metadata())["windlass-problems-bin"])
    assert problems[-1] == ["", f"and {1000 - len(problems) + 1} more problems"]


@pytest.mark.parametrize("job_id", ["bug", "bare"])
async def test_a_bug_is_logged_once_and_not_shown(job_id: str) -> None:
    async with a_coordinator() as here:
        with capture_logs() as logged:
            code, details = await refusal(here.jobs.GetJob(a_job(job_id), metadata=as_(TokenKind.USER)))

    assert code is grpc.StatusCode.INTERNAL
    assert "secret detail" not in details
    assert [(entry["event"], entry["method"]) for entry in logged] == [
        ("call.failed", "/windlass.v1.JobService/GetJob")
    ]
    assert details.endswith(logged[0]["request_id"])
    assert logged[0]["exc_info"] is ERRORS[job_id]


async def test_an_error_in_the_middle_of_a_stream_of_requests_reaches_the_caller() -> None:
    async with a_coordinator() as here:
        requests = iter([agent_pb2.AppendLogRequest(offset=n) for n in (1, 13, 2)])
        call = here.agents.AppendLog(requests, metadata=as_(TokenKind.NODE))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [one async for one in call]

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_token_is_looked_up_once_in_five_seconds() -> None:
    async with a_coordinator() as here:
        for _ in range(3):
            await here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER))
        assert here.credentials.looked_up == 1

        here.credentials.seconds = 5.0
        await here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER))
        assert here.credentials.looked_up == 2


async def test_a_revoked_token_stops_working_after_five_seconds() -> None:
    async with a_coordinator() as here:
        await here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER))
        here.credentials.add(TOKENS[TokenKind.USER], revoked=True)
        here.credentials.seconds = 5.0

        code, details = await refusal(here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER)))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "has been revoked" in details


async def test_a_token_does_not_outlive_its_time_by_being_remembered() -> None:
    async with a_coordinator() as here:
        here.credentials.add(TOKENS[TokenKind.USER], expires_at=START + timedelta(seconds=2))
        await here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER))
        here.credentials.seconds = 2.0

        code, details = await refusal(here.jobs.GetJob(a_job(), metadata=as_(TokenKind.USER)))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "has expired" in details
