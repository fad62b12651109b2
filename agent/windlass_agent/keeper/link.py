"""A connection to an agent: JSON lines both ways, never waited for."""

import json
import socket

from windlass_agent.keeper.record import Record

MAX_LINE_BYTES = 16 << 20
"""One message; a kernel takes at most 6 MiB of arguments and environment."""
MAX_UNSENT_BYTES = 1 << 20
"""Told but not read by the agent; it reads the journal when it comes back."""


class Link:
    """A connection; the newest that knows the nonce is the agent."""

    def __init__(self, sock: socket.socket, *, is_trusted: bool) -> None:
        sock.settimeout(0)
        self.sock = sock
        self.is_trusted = is_trusted
        self.received = b""
        self.unsent: list[bytes] = []

    def receive(self) -> list[Record]:
        """Raises OSError or ValueError when it is gone or talks nonsense."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return []
        if not data or len(self.received) > MAX_LINE_BYTES:
            raise ConnectionResetError
        *lines, self.received = (self.received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self) -> None:
        """Raises OSError when it is gone or does not read."""
        data = b"".join(self.unsent)
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        self.unsent = [data[sent:]] if sent < len(data) else []
        if len(data) - sent > MAX_UNSENT_BYTES:
            raise BrokenPipeError
