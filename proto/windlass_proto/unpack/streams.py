"""Compressed bytes read as plain ones, whichever way they were compressed, and never more than is allowed."""

import bz2
import gzip
import lzma
import zlib
from types import ModuleType
from typing import IO, Protocol

from windlass_proto.unpack.target import Refused, Source

DAMAGE = (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
"""What the libraries of the standard library raise; `bz2` raises an OSError without a number."""
_ZSTD_WINDOW = 128 << 20
"""As much as the program `zstd` takes unless it is told otherwise."""
_ZSTD_INPUT = 2048
"""Bytes at once; they unpack to 64 MiB at the very most."""
_ZSTD_STARTS = (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16)))


class _Frame(Protocol):
    """What `zstandard` gives for one frame."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


def plain_bytes(file: IO[bytes], start: bytes, zstd: ModuleType | None) -> Source | None:
    """The content of a compressed file that begins with `start`; None when it is not compressed."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    if start.startswith(_ZSTD_STARTS):
        if zstd is None:
            raise Refused("the archive is compressed by zstd, which this machine cannot read")
        return _ZstdStream(file, zstd)
    return None


class Counted:
    """A source that ends with Refused once it has given more than the limit, and what may surround it."""

    def __init__(self, source: Source, *, limit_bytes: int, around_bytes: int) -> None:
        self._source, self._limit_bytes = source, limit_bytes
        self._left = limit_bytes + around_bytes

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Refused(f"the archive unpacks to more than {self._limit_bytes} bytes")
        return data


class _ZstdStream:
    """Frame after frame. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: IO[bytes], zstd: ModuleType) -> None:
        self._file, self._error = file, zstd.ZstdError
        self._decompressor = zstd.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame: _Frame | None = None
        self._input = b""
        self._ready = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._ready and self._more():
            pass
        piece, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return piece

    def _more(self) -> bool:
        """Unpacks the next piece; False at the end."""
        data = self._input or self._file.read(_ZSTD_INPUT)
        self._input = b""
        if not data:
            if self._frame is not None:
                raise EOFError("it ends too early")
            return False
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except self._error as bad:
            raise EOFError(str(bad)) from bad
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return True
