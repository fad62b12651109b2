"""Who is connected: closes what only costs.

The gRPC library tells nothing of its connections and cannot close one, so this looks at the process's own
sockets and shuts them down itself; the library takes that for a peer that has gone. Closed are: connections
over which no valid credential has come for a while, the oldest of them at once when there are too many, and
those whose calls are mostly refused or given up (a flood of cancelled streams costs the sender nothing).
"""

import asyncio
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

import structlog

from windlass_coordinator.core.overload import OverloadLimits

STRANGER_TIME = timedelta(seconds=30)
"""A connection without a valid credential is closed after it; a look later at the latest."""
FIRST_CALL_TIME = timedelta(seconds=10)
"""A connection is left alone for it even when there are too many of them."""
_LONGEST_PATIENCE_S = 120.0
_PATIENCE_LEFT = 0.95
"""From one look to the next."""
PUT_OFF_TIME = timedelta(seconds=90)
"""Who was told to come again later is no stranger for it: closed connections would only be made anew."""
_LOOK_EVERY = timedelta(seconds=2)
_SHARE_OF_TIME = 0.02
_LOOK_AT_LEAST_EVERY = timedelta(seconds=10)
_LOOKED_AT_AT_ONCE = 200
_BURST_S = 20.0
_DESCRIPTORS = "/proc/self/fd"
_log = structlog.get_logger()

Address = tuple[str, int]
"""Where a peer calls from."""


class Peers:
    """What the guard of all calls has seen of each connection; only the event loop's thread touches it."""

    def __init__(self, limits: OverloadLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._offences_per_s = limits.offences_per_s
        self._clock = clock
        self.proven: set[str] = set()
        """Has sent a valid credential."""
        self.condemned: set[str] = set()
        """Is to be closed."""
        self.put_off: dict[str, float] = {}
        """Since when: it has sent something like a credential and was refused before that was looked at."""
        self._offences: dict[str, tuple[float, float]] = {}

    def offend(self, peer: str) -> None:
        """A call without a valid credential, or one that was given up before it was answered."""
        now = self._clock()
        seen_at_s, level = self._offences.get(peer, (now, 0.0))
        level = max(0.0, level - (now - seen_at_s) * self._offences_per_s) + 1
        self._offences[peer] = (now, level)
        if level > self._offences_per_s * _BURST_S:
            self.condemned.add(peer)

    def ask_again_later(self, peer: str) -> None:
        """A call with something like a credential was one too many just now."""
        self.put_off[peer] = self._clock()

    def is_put_off(self, peer: str) -> bool:
        since_s = self.put_off.get(peer)
        return since_s is not None and self._clock() - since_s <= PUT_OFF_TIME.total_seconds()

    def known(self) -> set[str]:
        """All of whom something is remembered."""
        return self.proven | self.condemned | self.put_off.keys() | self._offences.keys()

    def forget(self, gone: set[str]) -> None:
        """These connections are no more."""
        self.proven -= gone
        self.condemned -= gone
        for peer in self.put_off.keys() & gone:
            del self.put_off[peer]
        for peer in self._offences.keys() & gone:
            del self._offences[peer]


@dataclass(slots=True, kw_only=True)
class _Connection:
    inode: int
    peer: str
    since_s: float
    is_proven: bool = False


class ConnectionWatch:
    """Looks at the connections to one port of this process."""

    def __init__(self, port: int, *, peers: Peers, limits: OverloadLimits) -> None:
        self._port = port
        self._peers = peers
        self._most_strangers = limits.strangers
        self._known: dict[int, _Connection | int] = {}
        """By descriptor: a connection, or the inode of what is none of ours."""
        self._slowest_s = 0.0
        self.count = 0
        self.strangers = 0
        self.closed = 0

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = _LOOK_EVERY.total_seconds()
        while True:
            await asyncio.sleep(pause_s)
            begun_s = time.monotonic()
            # Who comes while we look may be missing from the picture, and is not gone.
            known = self._peers.known()
            connections = await self._connections()
            self._peers.forget(known - {connection.peer for connection in connections.values()})
            unwanted = self._judge(connections)
            for descriptor in unwanted:
                self.closed += _shut_down(descriptor, self._known.get(descriptor))
            if unwanted:
                _log.warning("connections.closed", count=len(unwanted), strangers=self.strangers)
            pause_s = pause_after(time.monotonic() - begun_s)

    def _judge(self, connections: dict[int, _Connection]) -> list[int]:
        """The descriptors of those to be closed."""
        now = time.monotonic()
        patience_s = self._patience_s(connections.values(), now)
        strangers = sorted(
            (connection.since_s, descriptor)
            for descriptor, connection in connections.items()
            if not connection.is_proven and not self._peers.is_put_off(connection.peer)
        )
        self.count, self.strangers = len(connections), len(strangers)
        first_call_s, stranger_s = FIRST_CALL_TIME.total_seconds(), STRANGER_TIME.total_seconds()
        surplus = [
            one
            for one in strangers[: max(0, len(strangers) - self._most_strangers)]
            if now - one[0] > max(first_call_s, patience_s)
        ]
        too_old = [one for one in strangers if now - one[0] > max(stranger_s, patience_s)]
        condemned = [
            descriptor
            for descriptor, connection in connections.items()
            if connection.peer in self._peers.condemned
        ]
        return list({descriptor for _, descriptor in (*surplus, *too_old)} | set(condemned))

    def _patience_s(self, connections: Iterable[_Connection], now: float) -> float:
        """Twice as long as the slowest of late took from connecting until a call of it was looked at: when
        ten thousand agents come back at once, it is us who are late."""
        self._slowest_s *= _PATIENCE_LEFT
        for connection in connections:
            if not connection.is_proven and connection.peer in self._peers.proven:
                connection.is_proven = True
                self._slowest_s = max(self._slowest_s, now - connection.since_s)
        return min(2 * self._slowest_s, _LONGEST_PATIENCE_S)

    async def _connections(self) -> dict[int, _Connection]:
        """On the event loop, a few at a time: two calls to the system for each from a thread of its own would
        pass Python's lock to and fro twenty thousand times."""
        seen: dict[int, _Connection | int] = {}
        for number, name in enumerate(os.listdir(_DESCRIPTORS)):
            if number % _LOOKED_AT_AT_ONCE == 0:
                await asyncio.sleep(0)
            found = self._look_at(int(name))
            if found is not None:
                seen[int(name)] = found
        self._known = seen
        return {descriptor: found for descriptor, found in seen.items() if isinstance(found, _Connection)}

    def _look_at(self, descriptor: int) -> _Connection | int | None:
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISSOCK(status.st_mode):
                return None
            known = self._known.get(descriptor)
            if known is not None and _inode_of(known) == status.st_ino:
                return known
            with _borrowed(descriptor) as ours:
                if ours.getsockname()[1] != self._port:
                    return status.st_ino
                return _Connection(
                    inode=status.st_ino, peer=peer_name(*ours.getpeername()[:2]), since_s=time.monotonic()
                )
        except (OSError, IndexError):  # closed meanwhile, a listener, or no internet socket
            return None


def pause_after(took_s: float) -> float:
    """Until the next look at the connections, after one that took so long; both in seconds."""
    least_s, most_s = _LOOK_EVERY.total_seconds(), _LOOK_AT_LEAST_EVERY.total_seconds()
    return min(most_s, max(least_s, took_s / _SHARE_OF_TIME))


def peer_name(host: str, port: int) -> str:
    """As the gRPC library names it to a handler, but for the escaping of brackets."""
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    if host.startswith("::ffff:") and "." in host:
        return f"ipv4:{host.removeprefix('::ffff:')}:{port}"
    return f"ipv6:[{host}]:{port}"


def peer_of(name: str) -> str:
    """The same from what the library says."""
    return unquote(name) if "%" in name else name


def _borrowed(descriptor: int) -> socket.socket:
    """The same socket under a descriptor of our own, which nobody closes and reuses meanwhile."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _inode_of(known: _Connection | int) -> int:
    return known.inode if isinstance(known, _Connection) else known


def _shut_down(descriptor: int, known: _Connection | int | None) -> bool:
    """Ends the connection if it still is the one that was judged."""
    if not isinstance(known, _Connection):
        return False
    try:
        with _borrowed(descriptor) as ours:
            if peer_name(*ours.getpeername()[:2]) != known.peer:
                return False
            ours.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True
