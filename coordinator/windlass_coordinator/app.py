"""The program `windlass-coordinator`: the only place where concrete parts meet."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter as TallyCounter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import structlog
from prometheus_client import CollectorRegistry, Gauge, GCCollector, ProcessCollector

from windlass_coordinator import config
from windlass_coordinator.admin.commands import VERBS, run_verb
from windlass_coordinator.auth.identity import (
    NODES_REMEMBERED_FOR,
    REMEMBERED_FOR,
    Authenticator,
    CredentialLookup,
    CredentialRecord,
)
from windlass_coordinator.auth.sealing import Sealer, open_sealer
from windlass_coordinator.auth.tokens import TokenKind
from windlass_coordinator.core.records import Wakes
from windlass_coordinator.duties import (
    ClockWatch,
    DrainWatch,
    LogRemover,
    RetryTimer,
    SeenNotes,
    SilenceWatch,
    keep_going,
)
from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.engine.last_looks import LastLooks
from windlass_coordinator.engine.parking import ParkedPolls, PollAnswer
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.first_start import exclusive, prepare
from windlass_coordinator.garbage import collected_seldom
from windlass_coordinator.heard_exchange import HeardExchange
from windlass_coordinator.log_setup import set_up_logging
from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.logstore.base import LogStore
from windlass_coordinator.retention import RetentionDuty
from windlass_coordinator.roles import RoleBound, RoleKeeper
from windlass_coordinator.rpc.agent_service import AgentService, AgentServiceParts
from windlass_coordinator.rpc.append_log import LogIntake
from windlass_coordinator.rpc.cluster_service import ClusterService, NodeService
from windlass_coordinator.rpc.interceptors import CallGuard
from windlass_coordinator.rpc.job_service import JobService, JobServiceParts
from windlass_coordinator.rpc.job_watch import JobWatchers
from windlass_coordinator.rpc.log_archive import LogArchive
from windlass_coordinator.rpc.read_log import LogSignals, LogTail
from windlass_coordinator.rpc.secret_service import SecretService
from windlass_coordinator.rpc.server import Services, open_server
from windlass_coordinator.stores import is_shared, open_store
from windlass_coordinator.stores.base import Store, Transaction, VerbRunner
from windlass_coordinator.vitals import Vitals, VitalsCollector, allow_many_files
from windlass_coordinator.web.server import WebServer
from windlass_proto import __version__, failpoints
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.states import NodeState

_log = structlog.get_logger()

ADDRESS_FILE = "coordinator.json"
_CANNOT_START = 2
_DISK_FAILED = 3
_GRACE_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT, or runs a verb. Exit code 0 = went down as asked, 2 = could not start,
    3 = the disk has failed."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        failpoints.install_from(config.failpoint())
        if given and given[0] in VERBS:
            return run_verb(given)
        settings = config.load_settings(given)
        set_up_logging(settings.log_level)
        allow_many_files()
        with exclusive(settings.data_directory):
            asyncio.run(_run(settings))
    except (WindlassError, BaseExceptionGroup) as error:
        why = _innermost(error)
        if not isinstance(why, WindlassError):
            raise
        print(f"windlass-coordinator: {why}", file=sys.stderr)
        return _CANNOT_START
    return 0


def _innermost(error: BaseException) -> BaseException:
    """What went wrong, without the groups of tasks that were open around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _run(settings: config.Settings) -> None:
    going_down = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, going_down.set)
    async with serving(settings) as running, collected_seldom():
        _announce(settings.data_directory, running)
        await going_down.wait()
        _log.info("coordinator.going_down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where a running coordinator can be reached, as HOST:PORT."""

    grpc: str
    http: str


@asynccontextmanager
async def serving(settings: config.Settings) -> AsyncIterator[Running]:
    """A coordinator that serves while the context is open. Raises Unavailable for a port it cannot have."""
    data = settings.data_directory
    async with AsyncExitStack() as stack:
        fleet = Fleet(settings.lease, monotonic=time.monotonic)
        vitals = Vitals(
            data,
            disk=settings.disk,
            overload=settings.overload,
            pardon=fleet.pardon,
            on_broken=_end_at_once,
        )
        vitals.reserve.begin()
        store = open_store(settings.store_url, condition=vitals.condition)
        stack.callback(store.close)
        token_file = prepare(store, data)
        if token_file is not None:
            _show_once(token_file)
        logs = open_log_store(
            settings.log_directory,
            attempt_quota_bytes=settings.limits.log_bytes_per_attempt,
            on_broken=vitals.on_broken,
        )
        stack.callback(logs.close)
        parts = await stack.enter_async_context(_Parts.assembled(settings, store, logs, fleet, vitals))
        web = WebServer(settings.http, registry=_metrics(parts), why_not_ready=vitals.readiness.why_not)
        await stack.enter_async_context(_answering(web))
        sealer = open_sealer(settings.master_key_file)
        await _tell_of_another_key(store, sealer)
        services = _services(settings, store, parts, sealer)
        server, address = open_server(settings.listen, services, settings.overload)
        watch = vitals.watch_port(address.port)
        await stack.enter_async_context(_keeping({"connections": watch.run}, vitals))
        await server.start()
        stack.push_async_callback(_stop, server, services.guard, parts.parked)
        vitals.readiness.begin()
        stack.callback(vitals.readiness.end)
        yield Running(grpc=str(address), http=str(web.address))


@asynccontextmanager
async def _answering(web: WebServer) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(web.serve())
        try:
            yield
        finally:
            web.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What services and duties share."""

    authenticator: Authenticator
    fleet: Fleet
    parked: ParkedPolls
    watchers: JobWatchers
    signals: LogSignals
    intake: LogIntake
    tail: LogTail
    archive: LogArchive
    rules: Rules
    vitals: Vitals
    removed: TallyCounter[str] = field(default_factory=TallyCounter)
    """What retention removed since the start, by kind."""

    def count_removed(self, kind: str, number: int) -> None:
        self.removed[kind] += number

    @classmethod
    @asynccontextmanager
    async def assembled(
        cls, settings: config.Settings, store: Store, logs: LogStore, fleet: Fleet, vitals: Vitals
    ) -> AsyncIterator["_Parts"]:
        """Builds the parts and runs the duties while the context is open."""
        signals = LogSignals()
        rules = Rules(retry=settings.retry, jitter=random.random)
        intaking = LogIntake(
            logs, on_appended=signals.notify, why_full=vitals.why_logs_wait(settings.log_directory)
        )
        async with intaking as intake:
            parts = cls(
                authenticator=_authenticator(settings, store),
                fleet=fleet,
                parked=ParkedPolls(looks=_last_looks(settings)),
                watchers=JobWatchers(),
                signals=signals,
                intake=intake,
                tail=LogTail(logs, signals),
                archive=LogArchive(logs),
                rules=rules,
                vitals=vitals,
            )
            for node_key in await store.run(_nodes_to_expect):
                fleet.expect(node_key)
            async with _duties(settings, store, logs, parts):
                yield parts


def _last_looks(settings: config.Settings) -> LastLooks | None:
    """None where others change the database too: nobody hears in time of all that they do."""
    return None if is_shared(settings.store_url) else LastLooks(monotonic=time.monotonic)


_MAY_HAVE_WORK = (
    NodeState.READY,
    NodeState.DRAINING,
    NodeState.DRAINED,
    NodeState.QUARANTINED,
    NodeState.SILENT,
)


def _nodes_to_expect(tx: Transaction) -> list[NodeKey]:
    return list(tx.nodes_in(_MAY_HAVE_WORK))


@asynccontextmanager
async def _duties(
    settings: config.Settings, store: Store, logs: LogStore, parts: _Parts
) -> AsyncIterator[None]:
    of_one: VerbRunner = RoleBound(store) if is_shared(settings.store_url) else store
    timer = RetryTimer(of_one, parts.rules.retry)
    remover = LogRemover(logs)

    def after_commit(wakes: Wakes) -> None:
        parts.parked.forget_changed(wakes)
        parts.authenticator.forget_nodes(wakes.changed_nodes)
        parts.watchers.notify(wakes)
        parts.signals.notify_jobs(wakes.jobs)
        if wakes.everything:
            timer.arm(datetime.now(UTC))
        if wakes.due is not None:
            timer.arm(wakes.due)
        remover.remove(wakes)

    store.listen(follow=parts.parked.follow, after_commit=after_commit)
    silence = SilenceWatch(of_one, parts.fleet, parts.rules, before_look=parts.vitals.stalls.look)
    retention = RetentionDuty(of_one, logs, settings.retention, on_removed=parts.count_removed)
    periodic = {
        "retry": timer.run,
        "silence": silence.run,
        "drain": DrainWatch(of_one, parts.rules).run,
        "clock": ClockWatch(of_one, parts.rules.retry, monotonic=time.monotonic).run,
        "retention": retention.run,
    }
    each = {"log_removal": remover.run, **parts.vitals.own_duties()}
    if not isinstance(of_one, RoleBound):
        each |= periodic | {"seen": SeenNotes(store, parts.fleet).run}
        async with _keeping(each, parts.vitals):
            yield
        return
    keeping = partial(_keeping, vitals=parts.vitals)
    keeper = RoleKeeper(store, of_one, policy=settings.role, duties=periodic, keeping=keeping)
    each |= {"role": keeper.run, "heard": HeardExchange(store, parts.fleet).run}
    async with _keeping(each, parts.vitals):
        yield
    await keeper.give_up()


@asynccontextmanager
async def _keeping(
    duties: Mapping[str, Callable[[], Awaitable[None]]], vitals: Vitals
) -> AsyncIterator[None]:
    """Runs duties while the context is open."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(keep_going(name, duty, vitals.duties)) for name, duty in duties.items()]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def _tell_of_another_key(store: Store, sealer: Sealer) -> None:
    """Everything else works without the secrets."""
    sealed = await store.run(lambda tx: tx.any_sealed())
    if sealed is not None and not sealer.can_open(sealed):
        _log.error("secrets.locked", master_key=str(sealer), do="bring the key file, or have all put again")


def _services(settings: config.Settings, store: Store, parts: _Parts, sealer: Sealer) -> Services:
    agents = AgentServiceParts(
        store=store,
        fleet=parts.fleet,
        parked=parts.parked,
        intake=parts.intake,
        archive=parts.archive,
        rules=parts.rules,
        sealer=sealer,
    )
    jobs = JobServiceParts(store=store, watchers=parts.watchers, tail=parts.tail, limits=settings.limits)
    return Services(
        guard=CallGuard(
            parts.authenticator,
            overload=parts.vitals.overload,
            peers=parts.vitals.peers,
            why_no_room=lambda: parts.vitals.reserve.why_short,
        ),
        agents=AgentService(agents),
        jobs=JobService(jobs),
        clusters=ClusterService(store, settings.limits),
        nodes=NodeService(store),
        secrets=SecretService(store, sealer, settings.limits),
    )


def _authenticator(settings: config.Settings, store: Store) -> Authenticator:
    nodes_for = REMEMBERED_FOR if is_shared(settings.store_url) else NODES_REMEMBERED_FOR
    return Authenticator(_credential_lookup(store), nodes_remembered_for=nodes_for)


def _credential_lookup(store: Store) -> CredentialLookup:
    async def lookup(token_id: str) -> CredentialRecord | None:
        def verb(tx: Transaction) -> CredentialRecord | None:
            found = tx.credential(token_id)
            if found is None:
                return None
            node = None if found.node_key is None else tx.node_view(found.node_key)
            return CredentialRecord(
                kind=TokenKind(found.kind),
                token_id=token_id,
                digest=found.digest,
                tenant=found.tenant,
                node_id=None if node is None else node.node_id,
                node_key=found.node_key,
                cluster=None if node is None else node.cluster,
                expires_at=found.expires_at,
                revoked=found.revoked,
            )

        return await store.look_up(verb)

    return lookup


async def _stop(server: grpc.aio.Server, guard: CallGuard, parked: ParkedPolls) -> None:
    """Parked polls and streams end at once; calls that are being served have a moment to finish."""
    for poll in parked.drain():
        poll.answer(PollAnswer(go_away=True))
    guard.end_streams()
    await server.stop(_GRACE_S)


def _metrics(parts: _Parts) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(VitalsCollector(parts.vitals))
    parked = Gauge("windlass_polls_parked", "Agents' polls that wait for work", registry=registry)
    parked.set_function(lambda: len(parts.parked))
    waiting = Gauge("windlass_log_streams_waiting", "Log streams that wait for the disk", registry=registry)
    waiting.set_function(lambda: parts.intake.disk_queue.waiting)
    for kind in ("jobs", "rows", "facts", "orphaned_logs"):
        name = f"windlass_retention_removed_{kind}"
        gauge = Gauge(name, f"Removed since the start by retention: {kind}", registry=registry)
        gauge.set_function(partial(parts.removed.__getitem__, kind))
    return registry


def _end_at_once(why: str) -> None:
    """The disk has lost what it was given: what this process believes is not to be trusted any more, so it
    writes nothing else. The next one reads what is on the disk."""
    _log.critical("coordinator.disk_failed", reason=why, exit_code=_DISK_FAILED)
    sys.stderr.flush()
    os._exit(_DISK_FAILED)


def _show_once(token_file: Path) -> None:
    """To a person only: a log file is no place for a secret."""
    _log.info("coordinator.admin_token_made", file=str(token_file))
    if sys.stdout.isatty():
        print(f"Admin token (shown once, kept in {token_file}): {token_file.read_text().strip()}")


def _announce(data: Path, running: Running) -> None:
    """Tells other programs and people where to find us; written whole or not at all."""
    text = json.dumps({"grpc": running.grpc, "http": running.http, "pid": os.getpid()})
    draft = data / f"{ADDRESS_FILE}.new"
    draft.write_text(text + "\n")
    draft.replace(data / ADDRESS_FILE)
    _log.info("coordinator.ready", version=__version__, grpc=running.grpc, http=running.http)


if __name__ == "__main__":
    sys.exit(main())
