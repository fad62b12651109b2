"""One life of the agent's connection after the other: join once, open a session, serve it until it is lost.

Opening tells the coordinator everything that is here (the inventory) and obeys what it answers. No poll is
under way at that moment, so an assignment whose reply was lost is missing from the inventory and comes back
to the queue.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.identity import NodeIdentity, save_identity
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.link.work import Work
from windlass_agent.node.facts import PROTOCOL_VERSION
from windlass_proto import convert
from windlass_proto.errors import InvalidRequest, SessionLost, Unavailable, WindlassError
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import SessionRef, Timing
from windlass_proto.model.ids import NodeId
from windlass_proto.model.status import NodeFacts
from windlass_proto.v1 import agent_pb2 as wire

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    ref: SessionRef
    timing: Timing


Loop = Callable[[OpenedSession], Awaitable[None]]
"""Serves one session; returns when it is lost."""


class NodeLogin:
    """The node's identity and its file; the credential is read from here by every call."""

    def __init__(self, path: Path, identity: NodeIdentity) -> None:
        self._path = path
        self.identity = identity

    def credential(self) -> str:
        return self.identity.credential

    def update(self, identity: NodeIdentity) -> None:
        save_identity(self._path, identity)
        self.identity = identity


class SessionKeeper:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        *,
        login: NodeLogin,
        facts: NodeFacts,
        boot_id: str,
        watch: LeaseWatch,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller, self._login, self._facts = channels, caller, login, facts
        self._boot_id, self._timeout_s, self._clock = boot_id, timeout_s, clock
        self._watch = watch

    async def join(self, token: str) -> None:
        """Once in a node's life; does nothing when it has joined. Raises Denied for a bad token."""
        if self._login.identity.node_id:
            return
        if not token:
            raise InvalidRequest("this node has not joined yet: give --join-token or --join-token-file")
        request = wire.JoinRequest(token=token, facts=convert.node_facts_to_wire(self._facts))
        reply = await self._caller.persist(self._channels.control.Join, request, timeout_s=self._timeout_s)
        self._login.update(
            replace(
                self._login.identity,
                node_id=reply.node_id,
                credential=reply.credential,
                cluster=reply.cluster,
            )
        )
        log.info("node.joined", node=reply.node_id, cluster=reply.cluster)

    async def serve(self, work: Work, loops: Sequence[Loop]) -> None:
        """Never returns. Raises Denied when the node is not welcome any more."""
        losses = 0
        while True:
            try:
                session = await self._open(work)
            except (Unavailable, SessionLost) as problem:
                losses += 1
                self._complain(problem, losses)
                await self._caller.pause(losses, problem)
                continue
            opened_at_s = self._clock()
            await _serve_all(session, loops)
            self._watch.closed()
            work.suspend()
            lasted_s = self._clock() - opened_at_s
            losses = 1 if lasted_s > session.timing.lease.total_seconds() else losses + 1
            log.warning("session.lost", node_epoch=session.ref.node_epoch, lasted_s=round(lasted_s, 3))
            await self._caller.pause(losses)

    def _complain(self, problem: WindlassError, failures: int) -> None:
        """At the first failure and then ever more rarely: an outage may be long."""
        if failures & (failures - 1) == 0:
            log.warning("session.refused", reason=str(problem), failures=failures)

    async def _open(self, work: Work) -> OpenedSession:
        identity = self._login.identity
        request = wire.OpenSessionRequest(
            node_id=identity.node_id,
            state_id=identity.state_id,
            boot_id=self._boot_id,
            last_nonce=identity.last_nonce,
            protocol_version=PROTOCOL_VERSION,
            facts=convert.node_facts_to_wire(self._facts),
            inventory=[convert.inventory_item_to_wire(item) for item in work.inventory()],
        )
        sent_at_s = self._clock()
        reply = await self._caller.lifeline(
            self._channels.control.OpenSession, request, timeout_s=self._timeout_s
        )
        reach("agent.session.after_reply")
        timing = convert.timing_from_wire(reply.timing)
        self._login.update(replace(identity, last_nonce=reply.nonce))
        log.info("session.opened", node_epoch=reply.node_epoch, inventory=len(request.inventory))
        self._watch.opened(work, timing, sent_at_s=sent_at_s)
        work.obey([convert.verdict_item_from_wire(item) for item in reply.verdicts])
        return OpenedSession(
            ref=SessionRef(node_id=NodeId(identity.node_id), node_epoch=reply.node_epoch, nonce=reply.nonce),
            timing=timing,
        )


async def _serve_all(session: OpenedSession, loops: Sequence[Loop]) -> None:
    """Until one of the loops finds the session lost; the others are ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(loop, session)) for loop in loops]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _run(loop: Loop, session: OpenedSession) -> None:
    await loop(session)
