"""What a terminal may be shown: task output without the sequences that steer it.

Bytes are opaque everywhere else; only here, at display, they become text (protocol.md, section 8).
"""

import codecs
import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links, clipboard
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]"  # short ones
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEQUENCE_CHARS_MAX = 4096


class Sanitiser:
    """Turns a stream of bytes into text that cannot steer a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """The text so far, less what may be the beginning of a sequence."""
        text = self._held + self._decoder.decode(data)
        text, self._held = _split_unfinished(text)
        return sanitise(text)

    def finish(self) -> str:
        """What was held back."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return sanitise(text)


def sanitise(text: str) -> str:
    """Without escape sequences and control characters; a lone carriage return becomes a line end."""
    plain = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", plain)


def _split_unfinished(text: str) -> tuple[str, str]:
    unfinished = _UNFINISHED.search(text)
    if unfinished is not None and len(text) - unfinished.start() <= _SEQUENCE_CHARS_MAX:
        return text[: unfinished.start()], unfinished.group()
    if text.endswith("\r"):  # perhaps half of a line end
        return text[:-1], "\r"
    return text, ""
