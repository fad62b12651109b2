"""JSON lines over a connected socket, in the event loop and never waiting."""

import asyncio
import json
import socket
from collections.abc import Callable

from windlass_agent.spool.durable import JsonRecord

READ_BYTES = 1 << 18


class LineConnection:
    """Calls `on_record` for each record, in order, and `on_closed` once when the other side is gone."""

    def __init__(
        self, sock: socket.socket, *, on_record: Callable[[JsonRecord], None], on_closed: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._on_record = on_record
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._unsent = b""
        self._is_open = True
        self._loop.add_reader(sock, self._on_readable)

    def write(self, data: bytes) -> None:
        """What the other side does not take now is kept; its owner bounds how much that can be."""
        self._unsent += data
        self._send()

    def close(self) -> None:
        """By us: `on_closed` is not called."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._on_record(json.loads(line))
        if not data and self._is_open:
            self.close()
            self._on_closed()

    def _send(self) -> None:
        try:
            while self._unsent and self._is_open:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._send)
            return
        except OSError:
            self._unsent = (
                b""  # The end of the connection is seen by the reader, after what is still to be read.
            )
        if self._is_open:
            self._loop.remove_writer(self._sock)
