"""Conversations with a coordinator as text: what was asked and answered, reviewed like code.

Messages are written in protobuf's text format; names that differ from run to run are numbered in the order
in which they appear. `WINDLASS_WRITE_TRANSCRIPTS=1` writes the reviewed files anew instead of comparing.
"""

import asyncio
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message

from tests.support.coordinator_process import CoordinatorProcess, wait_until
from windlass_proto import convert
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import agent_pb2_grpc, clusters_pb2, clusters_pb2_grpc, jobs_pb2, jobs_pb2_grpc

WRITE_VARIABLE = "WINDLASS_WRITE_TRANSCRIPTS"
_DEADLINE_S = 30.0
_FENCE_BITS = 40
_LONGEST_LINE = 96

_NAMES = {
    "JOB": r"job-[0-9a-f]{32}",
    "NODE": r"node-[0-9a-f]{32}",
    "TOKEN": r"wl[auj]_[0-9a-f]{16}_[0-9A-Za-z]{49}",
    "CREDENTIAL": r"wln_[0-9a-f]{16}_[0-9A-Za-z]{49}",
    "NONCE": r"\b[0-9a-f]{32}\b",
}
_ANY_NAME = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in _NAMES.items()))
_FENCE = re.compile(r"\b\d{13,}\b")


class Transcript:
    """Calls a coordinator and writes down what is said."""

    def __init__(self, coordinator: CoordinatorProcess) -> None:
        self._coordinator = coordinator
        self.lines: list[str] = []
        self._names: dict[str, str] = {}
        self._channel: grpc.aio.Channel | None = None

    # What is said

    def note(self, text: str) -> None:
        """What happens besides, in one sentence."""
        self.lines += [f"# {text}", ""]

    async def say(
        self, who: str, method: str, request: Message, *, credential: str, deadline_s: float = _DEADLINE_S
    ) -> Any:  # Any: a reply of any method, or None when it was refused
        """One call with its answer."""
        reply, answer = await self._call(method, request, credential, deadline_s)
        self._write(who, method, request, answer)
        return reply

    def begin(self, who: str, method: str, request: Message, *, credential: str) -> "Waiting":
        """A call that is answered later; it is written down with `Waiting.answer`."""
        self._write_request(who, method, request)
        self.lines.append("")
        return Waiting(
            self, who, method, asyncio.ensure_future(self._call(method, request, credential, _DEADLINE_S))
        )

    async def _call(
        self, method: str, request: Message, credential: str, deadline_s: float
    ) -> tuple[Any, str]:
        call = getattr(self._stub(method), method)
        metadata = (("authorization", f"Bearer {credential}"),) if credential else ()
        try:
            reply = await call(request, metadata=metadata, timeout=deadline_s)
        except grpc.aio.AioRpcError as refused:
            return None, f"{refused.code().name}: {refused.details()}"
        return reply, _shown(reply)

    # How it is written

    def _write(self, who: str, method: str, request: Message, answer: str) -> None:
        self._write_request(who, method, request)
        self.write_answer(answer)

    def _write_request(self, who: str, method: str, request: Message) -> None:
        self.lines.append(f"{who}: {method}")
        self.lines += _indented(_shown(request))

    def write_answer(self, answer: str) -> None:
        self.lines.append("->")
        self.lines += [*_indented(answer), ""]

    def text(self) -> str:
        """The whole conversation, the same for each run of it."""
        numbered = _ANY_NAME.sub(self._number, "\n".join(self.lines))
        return _FENCE.sub(_readable_fence, numbered).rstrip("\n") + "\n"

    def _number(self, found: re.Match[str]) -> str:
        name, kind = found.group(), found.lastgroup
        if name not in self._names:
            count = sum(known.startswith(f"{kind}-") for known in self._names.values())
            self._names[name] = f"{kind}-{count + 1}"
        return self._names[name]

    def compare(self, reviewed: Path) -> None:
        """With the reviewed file."""
        if os.environ.get(WRITE_VARIABLE):
            reviewed.write_text(self.text())
        assert self.text() == reviewed.read_text(), f"see {reviewed.name}; {WRITE_VARIABLE}=1 writes it anew"

    # Whom it is said to

    def _stub(self, method: str) -> Any:  # Any: one of four stubs
        if self._channel is None:
            self._channel = self._coordinator.channel()
        for stub in (
            agent_pb2_grpc.AgentServiceStub,
            jobs_pb2_grpc.JobServiceStub,
            clusters_pb2_grpc.ClusterServiceStub,
            clusters_pb2_grpc.NodeServiceStub,
        ):
            found = stub(self._channel)
            if hasattr(found, method):
                return found
        raise AssertionError(f"no service has a method {method}")

    async def restart_coordinator(self) -> None:
        """Kills it (-9) and starts it on the same data."""
        await self.close()
        self._coordinator.kill()
        self._coordinator.start()
        self.note("The coordinator is killed (-9) and started again on the same data.")

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def wait_until_parked(self, *, polls: int) -> None:
        """Looks at the coordinator's metrics until so many polls wait there."""

        def parked() -> bool:
            with urllib.request.urlopen(
                f"http://{self._coordinator.http_address}/metrics", timeout=5
            ) as answer:
                return f"windlass_polls_parked {float(polls)}" in answer.read().decode()

        await asyncio.to_thread(wait_until, parked, within_s=_DEADLINE_S, what=f"{polls} polls are parked")

    # Users, who stand beside the conversation: only their outcome is of interest

    async def ask(self, method: str, request: Message) -> Any:  # Any: a reply of any method
        """A user's call, not written down."""
        reply, answer = await self._call(method, request, self._coordinator.admin_token, _DEADLINE_S)
        assert reply is not None, answer
        return reply

    async def submit(self, *, instances: int = 1) -> str:
        """A job of one task `work` that runs `true`; returns its id."""
        task = TaskSpec(name=TaskName("work"), command=Argv(args=("true",)), instances=instances)
        spec = convert.job_spec_to_wire(JobSpec(name="job", tasks=(task,)))
        reply = await self.ask("SubmitJob", jobs_pb2.SubmitJobRequest(spec=spec))
        self.note(f"A user submits {reply.job_id}, a task of {instances} instance(s).")
        return str(reply.job_id)

    async def note_job(self, job_id: str) -> None:
        """Writes down how the job stands."""
        status = await self.ask("GetJob", jobs_pb2.GetJobRequest(job_id=job_id))
        self.note(f"{job_id} is {jobs_pb2.JobState.Name(status.state).removeprefix('JOB_STATE_')}.")


class Waiting:
    """A call under way."""

    def __init__(
        self, transcript: Transcript, who: str, method: str, call: "asyncio.Future[tuple[Any, str]]"
    ) -> None:
        self._transcript, self._who, self._method, self._call = transcript, who, method, call

    async def answer(self) -> Any:  # Any: as `say`
        reply, text = await self._call
        self._transcript.lines.append(f"{self._who}: {self._method}, answered now")
        self._transcript.write_answer(text)
        return reply


class SpokenAgent:
    """An agent that says exactly what a test tells it to."""

    def __init__(self, transcript: Transcript, name: str) -> None:
        self._transcript = transcript
        self.name = name
        self.node_id = self.credential = self.cluster = self.nonce = ""
        self.epoch = self.poll_seq = 0
        self.facts = wire.NodeFacts(
            name=name,
            slots=2,
            cpu=2,
            memory_bytes=1 << 30,
            agent_version="1.0",
            os="Linux",
            containment="none",
        )

    @property
    def session(self) -> wire.SessionRef:
        return wire.SessionRef(node_id=self.node_id, node_epoch=self.epoch, nonce=self.nonce)

    async def say(self, method: str, request: Message, **more: Any) -> Any:  # Any: as the transcript's
        return await self._transcript.say(
            self.name, method, request, **{"credential": self.credential, **more}
        )

    async def join(self, token: str) -> None:
        reply = await self.say("Join", wire.JoinRequest(token=token, facts=self.facts), credential="")
        self.become(reply)

    def become(self, reply: wire.JoinReply | None) -> None:
        if reply is not None:
            self.node_id, self.credential, self.cluster = reply.node_id, reply.credential, reply.cluster

    async def open_session(self, *inventory: wire.InventoryItem, boot_id: str = "boot-1") -> Any:
        request = wire.OpenSessionRequest(
            node_id=self.node_id,
            state_id="state-1",
            boot_id=boot_id,
            last_nonce=self.nonce,
            protocol_version=1,
            facts=self.facts,
            inventory=inventory,
        )
        reply = await self.say("OpenSession", request)
        if reply is not None:
            self.epoch, self.nonce, self.poll_seq = reply.node_epoch, reply.nonce, 0
        return reply

    def poll_request(
        self, *, want: int = 2, wait_s: int = 20, again: bool = False, is_empty: bool = False
    ) -> wire.PollRequest:
        self.poll_seq += not again
        request = wire.PollRequest(session=self.session, poll_seq=self.poll_seq, want=want, is_empty=is_empty)
        request.wait.seconds = wait_s
        return request

    async def poll(
        self, *, want: int = 2, wait_s: int = 20, again: bool = False, is_empty: bool = False
    ) -> list[wire.AttemptRef]:
        request = self.poll_request(want=want, wait_s=wait_s, again=again, is_empty=is_empty)
        reply = await self.say("Poll", request)
        return list(refs_of(reply)) if reply is not None else []

    def begin_poll(self, *, want: int = 2) -> Waiting:
        return self._transcript.begin(
            self.name, "Poll", self.poll_request(want=want), credential=self.credential
        )

    async def report(self, *events: tuple[wire.AttemptRef, wire.AttemptEvent]) -> Any:
        """All of one task."""
        for ref, event in events:
            event.index, event.attempt, event.fence = ref.index, ref.attempt, ref.fence
        group = wire.TaskEvents(task_key=events[0][0].task_key, events=[event for _, event in events])
        return await self.say("Report", wire.ReportRequest(session=self.session, tasks=[group]))

    async def heartbeat(self, *ended: wire.AttemptRef) -> Any:
        return await self.say("Heartbeat", wire.HeartbeatRequest(session=self.session, hb_seq=1, ended=ended))

    async def enter(self, cluster: str = "") -> None:
        """Joins and opens a session beside the conversation."""
        request = clusters_pb2.CreateJoinTokenRequest(cluster=cluster)
        token = await self._transcript.ask("CreateJoinToken", request)
        lines = list(self._transcript.lines)
        await self.join(token.token)
        await self.open_session()
        self._transcript.lines[:] = lines
        self._transcript.note(f"{self.name} joins as {self.node_id} and opens its first session.")


def refs_of(reply: wire.PollReply) -> Iterator[wire.AttemptRef]:
    for batch in reply.batches:
        for index, attempt, fence in zip(batch.index, batch.attempt, batch.fence, strict=True):
            yield wire.AttemptRef(task_key=batch.task_key, index=index, attempt=attempt, fence=fence)


def started() -> wire.AttemptEvent:
    event = wire.AttemptEvent(seq=2)
    event.started.SetInParent()
    return event


def exited(code: int = 0, **more: Any) -> wire.AttemptEvent:
    fields = {"code": code, "kind": "USER_EXIT" if code else "", "ran_for_us": 1000, **more}
    return wire.AttemptEvent(seq=3, exited=wire.Exited(**fields))


def stopped_early() -> wire.AttemptEvent:
    event = wire.AttemptEvent(seq=3)
    event.stopped.SetInParent()
    return event


def _shown(message: Message) -> str:
    """Text format; what is short stands in one line."""
    lines: list[str] = []
    for field, value in message.ListFields():
        is_list = not isinstance(value, Message | str | bytes | int | float)
        if field.message_type is None:
            alone = type(message)()
            if is_list:
                getattr(alone, field.name).extend(value)
            else:
                setattr(alone, field.name, value)
            lines.append(_in_one_line(alone))
            continue
        for part in value if is_list else [value]:
            line = f"{field.name} {{ {_in_one_line(part)} }}".replace("{  }", "{}")
            short = len(line) <= _LONGEST_LINE
            lines += [line] if short else [f"{field.name} {{", *_indented(_shown(part)), "}"]
    return "\n".join(lines)


def _in_one_line(message: Message) -> str:
    return text_format.MessageToString(
        message, as_utf8=True, as_one_line=True, use_short_repeated_primitives=True
    ).strip()


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _readable_fence(found: re.Match[str]) -> str:
    incarnation, number = divmod(int(found.group()), 1 << _FENCE_BITS)
    return f"{incarnation}<<{_FENCE_BITS} + {number}"
