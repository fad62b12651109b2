"""What a commit wakes, told to the other coordinators on the same database by NOTIFY.

A notification is part of the transaction that it tells of: it arrives when that is committed, and only then.
What does not fit into one tells everybody to look for themselves. Removing a deleted job's logs stays with
the coordinator that deleted it.
"""

import json
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import structlog

from windlass_coordinator.core.records import ClusterKey, Wakes
from windlass_coordinator.stores.postgres.sessions import connect
from windlass_coordinator.stores.sql.times import from_us, to_us
from windlass_proto.model.ids import JobId, NodeKey

_log = structlog.get_logger()

CHANNEL = "windlass_wakes"

# PostgreSQL takes less than 8000 bytes.
_LONGEST = 7_800

_RECONNECT_AFTER_S = 0.5

_encode = json.JSONEncoder(separators=(",", ":")).encode


class SignalWriter:
    """Adds what a transaction wakes to it. `origin` names this coordinator, which knows already."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def text(self, wakes: Wakes) -> str | None:
        """What is to be notified in the transaction; None = nothing."""
        return encode(wakes, origin=self._origin)


def encode(wakes: Wakes, *, origin: str) -> str | None:
    """As a payload; None = there is nothing to tell."""
    told: dict[str, object] = {
        "clusters": sorted(wakes.clusters),
        "nodes": sorted(wakes.nodes),
        "jobs": sorted(wakes.jobs),
        "ended": sorted(wakes.ended_jobs),
        "due": None if wakes.due is None else to_us(wakes.due),
    }
    told = {name: value for name, value in told.items() if value}
    if wakes.everything:
        told = {"everything": True}
    if not told:
        return None
    text = _encode({"from": origin, **told})
    if len(text) <= _LONGEST:
        return text
    return _encode({"from": origin, "everything": True})


def decode(text: str, *, origin: str) -> Wakes | None:
    """None = it is our own, or nothing that this version knows."""
    try:
        told = json.loads(text)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("from") == origin:
        return None
    due = told.get("due")
    return Wakes(
        clusters={ClusterKey(key) for key in told.get("clusters", ())},
        nodes={NodeKey(key) for key in told.get("nodes", ())},
        jobs={JobId(job_id) for job_id in told.get("jobs", ())},
        ended_jobs={JobId(job_id) for job_id in told.get("ended", ())},
        due=None if due is None else from_us(due),
        everything=bool(told.get("everything")),
    )


class SignalReader:
    """A thread that hears the others. What was said while it had no connection is made up for by waking
    everything once."""

    def __init__(self, conninfo: str, *, origin: str, on_wakes: Callable[[Wakes], None]) -> None:
        self._conninfo = conninfo
        self._origin = origin
        self._on_wakes = on_wakes
        self._closing = threading.Event()
        self._closed_end, self._close_end = socket.socketpair()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="store-signals", daemon=True)

    def start(self) -> None:
        """Listens from its return on."""
        self._connection = self._listening()
        self._thread.start()

    def close(self) -> None:
        """Waits until the thread has ended."""
        self._closing.set()
        self._close_end.close()
        self._thread.join()
        self._closed_end.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._connection is None:
                    self._connection = self._listening()
                    self._on_wakes(Wakes(everything=True))
                self._hear(self._connection)
            except psycopg.Error as error:
                _log.warning("store.signals_lost", error=" ".join(str(error).split()))
                self._drop()
                self._closing.wait(_RECONNECT_AFTER_S)
        self._drop()

    def _wait(self, connection: psycopg.Connection[Any]) -> None:
        """Until something comes in, or the end."""
        # Not select(): a coordinator has more descriptors open than that can look at.
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._closed_end, selectors.EVENT_READ)
            selector.select()

    def _listening(self) -> psycopg.Connection[Any]:
        connection = connect(self._conninfo)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        while not self._closing.is_set():
            self._wait(connection)
            heard = Wakes()
            for notification in connection.notifies(timeout=0):
                wakes = decode(notification.payload, origin=self._origin)
                if wakes is not None:
                    heard.merge(wakes)
            if heard != Wakes():
                self._on_wakes(heard)
