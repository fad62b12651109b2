"""The server side of AppendLog, as in `rpc/append_log.py`: written at once, answered when it is on disk."""

from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.messages import AppendCall, Appended
from tests.simulation.network import Connection
from windlass_coordinator.logstore.base import AppendOutcome, AppendVerdict, LogStore, StreamKey
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import JobId

if TYPE_CHECKING:
    from tests.simulation.coordinator import Coordinator

_SYNC_S = 0.1


class LogIntake:
    def __init__(self, coordinator: "Coordinator", logs: LogStore) -> None:
        self._coordinator = coordinator
        self._logs = logs
        self._writer = logs.open_writer()
        self._unsynced: list[tuple[Connection, Appended]] = []

    def append(self, request: AppendCall, connection: Connection) -> None:
        self._coordinator.run(
            lambda tx: tx.log_owner(request.node_key, request.ref),
            partial(self._admitted, request, connection),
            connection.fail,
            connection.name,
        )

    def _admitted(self, request: AppendCall, connection: Connection, job_id: JobId | None) -> None:
        if job_id is None:
            connection.reply(Appended(durable_end=0, revoked=True))
            return
        key = StreamKey(
            job_id=job_id,
            task_key=request.ref.task_key,
            index=request.ref.index,
            attempt=request.ref.attempt,
            stream=request.stream,
        )
        outcome = self._store(key, request)
        reply = Appended(durable_end=outcome.end, revoked=outcome.verdict is AppendVerdict.GONE)
        self._unsynced.append((connection, reply))
        if len(self._unsynced) == 1:
            self._coordinator.after(self._coordinator.world.rng.uniform(0.0, _SYNC_S), self._sync)

    def _store(self, key: StreamKey, request: AppendCall) -> AppendOutcome:
        if request.gap_bytes:
            return self._writer.append_gap(
                key, offset=request.offset, length=request.gap_bytes, reason=request.gap_reason
            )
        return self._writer.append(key, offset=request.offset, data=request.data, crc32=request.crc32)

    def _sync(self) -> None:
        answered, self._unsynced = self._unsynced, []
        try:
            self._writer.sync()
        except WindlassError as error:
            # As a broken call: the next one has a writer of its own.
            self._writer = self._logs.open_writer()
            for connection, _ in answered:
                connection.fail(error)
            return
        for connection, reply in answered:
            connection.reply(reply)
