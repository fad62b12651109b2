"""What agents call: messages become values, a verb runs, its outcome becomes a message."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from windlass_coordinator.auth.sealing import Seal, Sealer
from windlass_coordinator.auth.tokens import RANDOM_BYTES, TokenKind, has_digest, new_token, parse_token
from windlass_coordinator.core.leases import poll_wait
from windlass_coordinator.core.records import Claimed, ClusterKey, LogFacts, NodeView
from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.engine.nodes import (
    attempts_to_audit,
    attempts_to_end,
    note_trouble,
    settle_missing,
    settle_never_arrived,
)
from windlass_coordinator.engine.parking import ParkedPoll, ParkedPolls, PollAnswer
from windlass_coordinator.engine.publish_outputs import Commit, commit_outputs
from windlass_coordinator.engine.report import report
from windlass_coordinator.engine.revoke import release
from windlass_coordinator.engine.secrets import hand_out
from windlass_coordinator.engine.session import NewNode, OpenRequest, current_node, join, leave, open_session
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.rpc.agent_messages import (
    LONGEST_FACT,
    calling_node_key,
    checked_facts,
    checked_publication,
    checked_session,
    forgettable,
    poll_reply,
    trouble_of,
)
from windlass_coordinator.rpc.append_log import LogIntake
from windlass_coordinator.rpc.interceptors import Context
from windlass_coordinator.rpc.interceptors import current_node as calling_node
from windlass_coordinator.rpc.log_archive import LogArchive
from windlass_coordinator.rpc.node_notes import NodeNotes
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto import convert
from windlass_proto.checks.words import Findings, check_text
from windlass_proto.errors import Denied, InvalidRequest, Unavailable
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import Timing
from windlass_proto.model.ids import AttemptRef, JobId, NodeId, NodeKey
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.secrets import OpenedSecret
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import agent_pb2_grpc

# A commit that serves a poll is at most this far from telling it.
_DELIVERY_DEADLINE_S = 5.0

# One reply must stay well below the 4 MiB of a message; who wants more polls again.
_MOST_PER_POLL = 4096
# The store's integers end here.
_POLL_SEQ_END = 1 << 63

_ENDED_PER_VERB = 500

_NOTHING_CAME = PollAnswer()

# As many as may poll at once (`overload.polls`).
_NODES_NOTED = 50_000


_Look = Callable[[Transaction], Sequence[Claimed]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServiceParts:
    """What the service works with."""

    store: Store
    fleet: Fleet
    parked: ParkedPolls
    intake: LogIntake
    archive: LogArchive
    rules: Rules
    sealer: Sealer


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """Implements `windlass.v1.AgentService`."""

    def __init__(self, parts: AgentServiceParts) -> None:
        self._store = parts.store
        self._fleet = parts.fleet
        self._parked = parts.parked
        self._intake = parts.intake
        self._archive = parts.archive
        self._rules = parts.rules
        self._sealer = parts.sealer
        self._notes = NodeNotes(most=_NODES_NOTED)
        self._told_timing: tuple[Timing, wire.Timing] | None = None

    async def Join(self, request: wire.JoinRequest, context: Context) -> wire.JoinReply:
        token = parse_token(request.token)
        if token is None or token.kind is not TokenKind.JOIN:
            raise Denied("this is not a join token, or it was damaged: copy it whole")
        secret = new_token(TokenKind.NODE, randomness=secrets.token_bytes(RANDOM_BYTES))
        new = NewNode(
            node_id=NodeId(f"node-{secrets.token_hex(16)}"),
            credential_kind=secret.kind.value,
            credential_id=secret.token_id,
            credential_digest=secret.digest,
        )
        facts = checked_facts(request.facts)

        def verb(tx: Transaction) -> NodeView:
            known = tx.credential(token.token_id)
            if known is None or known.kind != token.kind.value or not has_digest(token, known.digest):
                raise Denied("the join token is used up, expired or unknown: make a new one")
            node = tx.node_view(join(tx, known, facts, new, now=_now()))
            assert node is not None
            return node

        node = await self._store.run(verb)
        return wire.JoinReply(node_id=node.node_id, credential=secret.text, cluster=node.cluster)

    async def OpenSession(self, request: wire.OpenSessionRequest, context: Context) -> wire.OpenSessionReply:
        node_key = calling_node_key(request.node_id)
        opening = OpenRequest(
            state_id=request.state_id,
            boot_id=request.boot_id,
            last_nonce=request.last_nonce,
            facts=checked_facts(request.facts),
            inventory=[convert.inventory_item_from_wire(item) for item in request.inventory],
        )
        nonce = secrets.token_hex(16)

        def verb(tx: Transaction) -> tuple[NodeView, wire.OpenSessionReply]:
            node = tx.node_view(node_key)
            if node is None:
                raise Denied("this node is not known here: join again")
            opened = open_session(
                tx,
                node,
                opening,
                nonce=nonce,
                logs_stored=self._archive.is_stored,
                rules=self._rules,
                now=_now(),
            )
            return node, wire.OpenSessionReply(
                node_epoch=opened.epoch,
                nonce=opened.nonce,
                verdicts=[convert.verdict_item_to_wire(item) for item in opened.verdicts],
            )

        node, reply = await self._store.run(verb)
        reach("coord.session.after_commit")
        note = self._notes.of(node_key)
        note.place, note.told_stops = (node.cluster_key, opening.facts.capacity), frozenset()
        self._fleet.hear(node_key)
        reply.timing.CopyFrom(self._timing())
        return reply

    async def Poll(self, request: wire.PollRequest, context: Context) -> wire.PollReply:
        session, node_key = checked_session(request.session)
        if not 0 < request.poll_seq < _POLL_SEQ_END:
            raise InvalidRequest(f"poll_seq: must be above 0 and below {_POLL_SEQ_END}")
        may_repeat = self._fleet.note_poll(
            node_key, epoch=session.node_epoch, poll_seq=request.poll_seq, via=context.peer()
        )
        cluster_key, capacity = await self._place_of(node_key)
        poll = ParkedPoll(
            node_key=node_key,
            cluster_key=cluster_key,
            capacity=capacity,
            epoch=session.node_epoch,
            nonce=session.nonce,
            poll_seq=request.poll_seq,
            want=min(request.want, _MOST_PER_POLL),
            reply=asyncio.get_running_loop().create_future(),
            is_empty=request.is_empty,
            may_repeat=may_repeat,
            told_stops=self._notes.of(node_key).told_stops,
        )

        def look(tx: Transaction) -> Sequence[Claimed]:
            node = current_node(tx, node_key, session)
            if request.is_empty:
                settle_never_arrived(tx, node, poll_seq=poll.poll_seq, rules=self._rules, now=_now())
            return tx.leased_by_poll(node, poll_seq=poll.poll_seq) if poll.may_repeat else ()

        def nudge(tx: Transaction) -> Sequence[Claimed]:
            earlier = look(tx)
            if not earlier:
                tx.wakes.nodes.add(node_key)
            return earlier

        is_known = self._parked.park(poll) and not may_repeat
        try:
            earlier = () if is_known else await self._store.run(nudge)
            self._fleet.hear_poll(node_key)
            answer = await (self._again(poll, earlier, look) if earlier else self._wait(poll, request, look))
        finally:
            self._parked.withdraw(poll)
        if answer.stops:
            self._notes.of(node_key).told_stops = frozenset(answer.stops)
        if answer.claimed:
            reach("coord.claim.after_commit")
        reply = poll_reply(answer)
        if self._fleet.news_for(node_key) is not None:
            reply.timing.CopyFrom(self._timing())
        return reply

    async def _again(self, poll: ParkedPoll, earlier: Sequence[Claimed], look: _Look) -> PollAnswer:
        """What the poll has leased already; and more, when a commit served it before it was withdrawn."""
        if not self._parked.withdraw(poll):
            _expect_delivery(poll)
            await poll.reply
            earlier = await self._store.run(look)
        return PollAnswer(claimed=earlier)

    async def _wait(self, poll: ParkedPoll, request: wire.PollRequest, look: _Look) -> PollAnswer:
        """What comes in time. Who is told that nothing came will not ask for it again: so when a commit may
        have leased something to this poll unknown to us, the last look is at the database."""
        asked = convert.duration_from_wire(request.wait) if request.HasField("wait") else None
        longest = self._fleet.timing().poll_wait
        wait = poll_wait(longest, asked=asked, poll_seq=request.poll_seq, jitter=self._rules.jitter())
        # A timer that answers: waiting with a deadline costs an idle coordinator a tenth of all it does.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, wait.total_seconds()), self._time_is_over, poll)
        try:
            answer = await poll.reply
        finally:
            timer.cancel()
        if answer is _NOTHING_CAME and poll.may_repeat:
            return PollAnswer(claimed=await self._store.run(look))
        return answer

    def _time_is_over(self, poll: ParkedPoll) -> None:
        if self._parked.withdraw(poll):
            poll.answer(_NOTHING_CAME)
        else:
            _expect_delivery(poll)

    async def Report(self, request: wire.ReportRequest, context: Context) -> wire.ReportReply:
        session, node_key = checked_session(request.session)
        events = convert.events_from_wire(request.tasks)
        verdicts = await self._store.run(
            lambda tx: report(tx, current_node(tx, node_key, session), events, rules=self._rules, now=_now())
        )
        reach("coord.report.after_commit")
        return wire.ReportReply(
            verdicts=convert.event_verdicts_to_wire(verdicts), forget=forgettable(events, verdicts)
        )

    async def Heartbeat(self, request: wire.HeartbeatRequest, context: Context) -> wire.HeartbeatReply:
        session, node_key = checked_session(request.session)
        ended = [convert.attempt_ref_from_wire(ref) for ref in request.ended]
        missing = [convert.attempt_ref_from_wire(ref) for ref in request.missing]
        trouble = trouble_of(request.pressure)
        is_quiet = not missing and self._parked.is_quiet(node_key, session, reason=trouble)
        audits = not is_quiet and self._is_audit_due(node_key)

        def verb(tx: Transaction) -> tuple[list[AttemptRef], list[AttemptRef]]:
            node = current_node(tx, node_key, session)
            settle_missing(tx, node, missing, rules=self._rules, now=_now())
            note_trouble(tx, node, trouble)
            audit = self._audit(tx, node) if audits else []
            return attempts_to_end(tx, node, now=_now()), audit

        stops, audit = ([], []) if is_quiet else await self._store.run(verb)
        forgets = await self._settled(ended)
        self._fleet.hear(node_key)
        return wire.HeartbeatReply(
            timing=self._timing(),
            stops=[convert.attempt_ref_to_wire(ref) for ref in stops],
            forgets=[convert.attempt_ref_to_wire(ref) for ref in forgets],
            audit=[convert.attempt_ref_to_wire(ref) for ref in audit],
        )

    def _timing(self) -> wire.Timing:
        """Mostly the one that was told before."""
        timing = self._fleet.timing()
        if self._told_timing is None or self._told_timing[0] is not timing:
            self._told_timing = (timing, convert.timing_to_wire(timing))
        return self._told_timing[1]

    def _is_audit_due(self, node_key: NodeKey) -> bool:
        """A quarter of the deadline is often enough; each audit is a query."""
        now_s, note = asyncio.get_running_loop().time(), self._notes.of(node_key)
        if now_s < note.audit_due_s:
            return False
        note.audit_due_s = now_s + self._fleet.accept_deadline.total_seconds() / 4
        return True

    def _audit(self, tx: Transaction, node: NodeView) -> list[AttemptRef]:
        return attempts_to_audit(tx, node, accept_deadline=self._fleet.accept_deadline, now=_now())

    async def _settled(self, ended: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those of which nothing more is wanted; asked in portions, as other verbs wait meanwhile."""
        settled: list[AttemptRef] = []
        for start in range(0, len(ended), _ENDED_PER_VERB):
            refs = ended[start : start + _ENDED_PER_VERB]
            known = await self._store.run(partial(log_facts, refs=refs))
            # Outside of the verb: it may look at the disk.
            answers = await asyncio.to_thread(self._archive.which_are_settled, known)
            settled += [ref for ref, is_settled in zip(refs, answers, strict=True) if is_settled]
        return settled

    async def AppendLog(
        self, request_iterator: AsyncIterator[wire.AppendLogRequest], context: Context
    ) -> AsyncIterator[wire.AppendLogReply]:
        node_key = calling_node().node_key

        async def admit(refs: Sequence[AttemptRef]) -> list[JobId | None]:
            return await self._store.run(lambda tx: [tx.log_owner(node_key, ref) for ref in refs])

        async for reply in self._intake.append(request_iterator, admit=admit):
            yield reply

    async def Release(self, request: wire.ReleaseRequest, context: Context) -> wire.ReleaseReply:
        session, node_key = checked_session(request.session)
        refs = [convert.attempt_ref_from_wire(ref) for ref in request.refs]
        released = await self._store.run(
            lambda tx: release(tx, current_node(tx, node_key, session), refs, rules=self._rules, now=_now())
        )
        reach("coord.release.after_commit")
        return wire.ReleaseReply(released=released)

    async def CommitOutputs(
        self, request: wire.CommitOutputsRequest, context: Context
    ) -> wire.CommitOutputsReply:
        session, node_key = checked_session(request.session)
        wanted, of_failed_command = checked_publication(request), request.of_failed_command

        def verb(tx: Transaction) -> Commit:
            node = current_node(tx, node_key, session)
            return commit_outputs(tx, node, wanted, of_failed_command=of_failed_command)

        commit = await self._store.run(verb)
        reach("coord.outputs.after_commit")
        verdict = commit.verdict
        return wire.CommitOutputsReply(
            granted=verdict.granted,
            reason=verdict.reason,
            not_yet=verdict.not_yet,
            supersedes=commit.supersedes,
        )

    async def FetchSecrets(
        self, request: wire.FetchSecretsRequest, context: Context
    ) -> wire.FetchSecretsReply:
        session, node_key = checked_session(request.session)
        ref = convert.attempt_ref_from_wire(request.ref)
        found = await self._store.run(lambda tx: hand_out(tx, current_node(tx, node_key, session), ref))
        seals = [Seal(tenant=found.tenant, name=secret.name, kind=secret.kind) for secret in found.secrets]
        opened = [
            OpenedSecret(name=seal.name, kind=seal.kind, document=self._sealer.open(secret.sealed, seal))
            for secret, seal in zip(found.secrets, seals, strict=True)
        ]
        return wire.FetchSecretsReply(secrets=[convert.opened_secret_to_wire(secret) for secret in opened])

    async def Leave(self, request: wire.LeaveRequest, context: Context) -> wire.LeaveReply:
        session, node_key = checked_session(request.session)
        findings = Findings()
        check_text(findings, "reason", request.reason, longest_bytes=LONGEST_FACT)
        findings.raise_if_any()
        reason = request.reason
        await self._store.run(
            lambda tx: leave(
                tx, current_node(tx, node_key, session), reason=reason, rules=self._rules, now=_now()
            )
        )
        self._fleet.forget(node_key)
        self._notes.drop(node_key)
        return wire.LeaveReply()

    async def _place_of(self, node_key: NodeKey) -> tuple[ClusterKey, NodeCapacity]:
        note = self._notes.of(node_key)
        if note.place is None:
            node = await self._store.look_up(lambda tx: tx.node_view(node_key))
            if node is None:
                raise Denied("this node is not known here: join again")
            note.place = (node.cluster_key, node.capacity)
        return note.place


def _expect_delivery(poll: ParkedPoll) -> None:
    """A commit is serving the poll now. Should that fail, the agent asks again with this poll_seq."""
    late = Unavailable("the assignment could not be stored in time: poll again")
    asyncio.get_running_loop().call_later(_DELIVERY_DEADLINE_S, poll.fail, late)


def _now() -> datetime:
    return datetime.now(UTC)


def log_facts(tx: Transaction, refs: Sequence[AttemptRef]) -> list[LogFacts | None]:
    return [tx.attempt_log_facts(ref) for ref in refs]
