"""HTTP/2 as far as a fleet of simulated agents needs it: unary gRPC calls on a connection of one's own.

The library's channels would cost more than what is to be measured: ten thousand of them take gigabytes and
both cores. What crosses the wire is the same: a connection for each agent, headers compressed against its
table, several calls open at once.
"""

import asyncio
import re
from collections.abc import Callable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_FRAME = 9
_WIDE_WINDOW = (1 << 30).to_bytes(4, "big")
"""Replies are small, but there are many on one connection."""
_PUSHBACK = re.compile(rb"grpc-retry-pushback-ms.(\d+)", re.DOTALL)
_MESSAGE_PREFIX = 5

Done = Callable[[bytes | None, bytes], None]
"""Gets the reply, or None and what stood in the trailers (as it came, which is enough to find a word in)."""


def pushback_s(trailers: bytes) -> float:
    """How long the coordinator asks to wait; 0 = it did not."""
    found = _PUSHBACK.search(trailers)
    return int(found.group(1)) / 1000 if found else 0.0


class Connection(asyncio.Protocol):
    """One connection. Made by the event loop; `gone` gets the calls that it took along."""

    __slots__ = (
        "_authority",
        "_buffer",
        "_credential",
        "_done",
        "_gone",
        "_knows_headers",
        "_next_stream",
        "_parts",
        "_trailers",
        "_transport",
    )

    def __init__(self, *, authority: str, credential: str, gone: Callable[[list[Done]], None]) -> None:
        self._authority, self._credential = authority.encode(), credential.encode()
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._next_stream = 1
        self._knows_headers = False
        self._done: dict[int, Done] = {}
        self._parts: dict[int, bytes] = {}
        self._trailers: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW, 0, 0, _WIDE_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        lost = list(self._done.values())
        self._done.clear()
        self._gone(lost)

    @property
    def has_gone(self) -> bool:
        return self._transport is None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def call(self, path: bytes, message: bytes, done: Done, *, timeout_s: int) -> None:
        """`done` is called once, unless the connection goes before. Raises ConnectionError."""
        if self._transport is None:
            raise ConnectionError("the connection has gone")
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._done[stream] = done
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, self._headers(path, timeout_s))
            + _frame(_DATA, _END_STREAM, stream, body)
        )

    def _headers(self, path: bytes, timeout_s: int) -> bytes:
        timeout = b"%dS" % timeout_s
        own = b"\x83\x86\x04" + _text(path) + b"\0" + _text(b"grpc-timeout") + _text(timeout)
        if self._knows_headers:  # indexes of the table as the first request has left it
            return own + b"\xbe\xbf\xc0\xc1"
        self._knows_headers = True
        return (
            own
            + (b"\x41" + _text(self._authority))
            + (b"\x40" + _text(b"te") + _text(b"trailers"))
            + (b"\x5f" + _text(b"application/grpc"))
            + (b"\x57" + _text(b"Bearer " + self._credential))
        )

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at = 0
        while len(data) - at >= _FRAME:
            length = int.from_bytes(data[at : at + 3], "big")
            if len(data) - at < _FRAME + length:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + _FRAME], "big")
            at += _FRAME + length
            self._take(kind, flags, stream, data[at - length : at])
        self._buffer = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._parts[stream] = self._parts.get(stream, b"") + payload
        elif kind == _HEADERS:
            self._trailers[stream] = self._trailers.get(stream, b"") + payload
        elif kind == _RESET:
            self._end(stream)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK and self._transport is not None:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GO_AWAY:
            self.close()
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._end(stream)

    def _end(self, stream: int) -> None:
        body, trailers = self._parts.pop(stream, None), self._trailers.pop(stream, b"")
        done = self._done.pop(stream, None)
        if done is not None:
            done(None if body is None else body[_MESSAGE_PREFIX:], trailers)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: bytes) -> bytes:
    """Without Huffman's code, as the library sends it."""
    assert len(value) < 0x7F
    return bytes((len(value),)) + value
