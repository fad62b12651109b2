"""What an archive may cost, as the program is told it."""

import json
from dataclasses import asdict, dataclass

RATIO_COUNTS_ABOVE = 256 << 20
"""Bytes; what unpacks to less is no bomb, however small its archive is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    unpacked_bytes: int
    """All files together."""
    entries: int
    """Files, directories and links."""
    ratio: int
    """Unpacked bytes for each byte of the archive, above RATIO_COUNTS_ABOVE."""
    user: int | None = None
    """User and group that unpacks; None = whoever starts the program."""
    group: int | None = None
    parent: int = 0
    """Process without which it does not go on; 0 = any."""
    libraries: str = ""
    """Directory in which `zstandard` is installed; "" = it is not."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def bytes_from(self, archive_bytes: int) -> int:
        """What an archive of this size may unpack to."""
        return min(self.unpacked_bytes, max(RATIO_COUNTS_ABOVE, self.ratio * archive_bytes))


def limits_from_json(text: str) -> Limits:
    return Limits(**json.loads(text))
