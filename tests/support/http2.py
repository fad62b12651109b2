"""HTTP/2 frames as no library would send them, over a plain socket."""

import socket
import struct
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 0x1, 0x4
_DEADLINE_S = 30.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers_of(path: str, *, token: str = "") -> bytes:
    """Of a gRPC call, each as a literal that no table remembers."""
    pairs = [(b":path", path.encode()), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
    if token:
        pairs.append((b"authorization", b"Bearer " + token.encode()))
    return b"\x83\x86" + b"".join(literal(name, value) for name, value in pairs)


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    if len(value) < 0x7F:
        return bytes((len(value),)) + value
    rest, length = len(value) - 0x7F, b"\x7f"
    while rest >= 0x80:
        length += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return length + bytes((rest,)) + value


class Peer:
    """One connection, as its misbehaving client has it."""

    def __init__(self, address: str, *, speaks: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_DEADLINE_S)
        if speaks:
            self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """False when the other side has ended the connection."""
        try:
            self.socket.setblocking(True)
            self.socket.settimeout(_DEADLINE_S)
            self.socket.sendall(data)
        except OSError:
            return False
        return not self.is_closed()

    def is_closed(self) -> bool:
        """Whether the other side has ended it; what it has said before is thrown away."""
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            try:
                while self.socket.recv(1 << 16):
                    pass
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                return True
            return True
        return False
