"""Output whose every byte tells where it stands: what is read is compared without keeping what was written.

The block is random bytes, all values among them, of a length that divides nothing: a piece that was lost,
doubled or moved does not fit.
"""

import random
import shlex
import sys

BLOCK_BYTES = 65_521
"""After whole blocks a second writer goes on as the first one would."""
_BLOCK = random.Random(20).randbytes(BLOCK_BYTES)
_WRITER = """
import os, pathlib, random, sys, time
block = random.Random(20).randbytes(65_521)
fd, size, pause, gate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
many, done = block * 16, 0
while (done < size if size else not pathlib.Path(gate).exists()):
    at = done % len(block)
    step = min(len(block) if pause else len(many) - at, size - done if size else len(block))
    done += os.write(fd, many[at:at + step])
    if pause:
        time.sleep(pause)
"""


def expected(offset: int, length: int) -> bytes:
    """What was produced there."""
    at = offset % len(_BLOCK)
    return (_BLOCK * (2 + length // len(_BLOCK)))[at : at + length]


def writes(size_bytes: int, *, fd: int = 1) -> str:
    """Shell: so much of it, as fast as it goes."""
    return _command(fd, size_bytes, 0.0, "")


def writes_until(gate: object, *, pause_s: float = 0.02, fd: int = 1) -> str:
    """Shell: a block after the other, until the file is there."""
    return _command(fd, 0, pause_s, str(gate))


def _command(fd: int, size_bytes: int, pause_s: float, gate: str) -> str:
    words = [sys.executable, "-c", _WRITER, str(fd), str(size_bytes), str(pause_s), gate]
    return shlex.join(words)
