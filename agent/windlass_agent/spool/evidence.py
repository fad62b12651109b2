"""Damaged records are kept for whoever wants to know what happened, while the agent goes on without them."""

import zlib
from pathlib import Path

import structlog

_MOST = 32
"""Files kept; the oldest go first."""
_MOST_BYTES = 64 << 20
"""Of one file."""

log = structlog.get_logger()


class Evidence:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, path: Path) -> None:
        """A copy, once for each content. Without room there is none, and the agent goes on all the same."""
        try:
            data = path.read_bytes()[:_MOST_BYTES].rstrip(b"\0")
            self._directory.mkdir(mode=0o700, exist_ok=True)
            copy = self._directory / f"{path.parent.name}-{path.name}-{zlib.crc32(data):08x}"
            if not copy.exists():
                copy.write_bytes(data)
                log.error("evidence.kept", file=str(copy), of=str(path))
            self._limit()
        except OSError as problem:
            log.warning("evidence.not_kept", of=str(path), reason=str(problem))

    def _limit(self) -> None:
        copies = sorted(self._directory.iterdir(), key=lambda copy: copy.stat().st_mtime)
        for copy in copies[:-_MOST]:
            copy.unlink()
