"""Texts and numbers: what every field of a specification has to keep."""

import difflib
import math
import re
from collections.abc import Collection, Iterable

from windlass_proto.errors import InvalidRequest, Problem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_SHOWN = 60


class Findings:
    """The problems found so far, and how many bytes of text were seen on the way."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.seen_bytes = 0

    def add(self, path: str, message: str) -> None:
        self.problems.append(Problem(path=path, message=message))

    def raise_if_any(self) -> None:
        """Raises InvalidRequest with all of them."""
        if self.problems:
            raise InvalidRequest("; ".join(str(problem) for problem in self.problems))


def nearest(name: str, known: Collection[str]) -> str | None:
    """The one of `known` that `name` was probably meant to be."""
    folded = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def check_text(findings: Findings, path: str, text: str, *, longest_bytes: int) -> bool:
    """Any text that programs and stores can hold. Whether it was found good."""
    unfit = _NOT_TEXT.search(text)
    if unfit is not None:
        what = "a NUL character" if unfit.group() == "\0" else "half of a surrogate pair"
        findings.add(path, f"must not contain {what} (is at position {unfit.start()})")
        return False
    size = len(text.encode())
    findings.seen_bytes += size
    if size > longest_bytes:
        findings.add(path, f"must be at most {longest_bytes} bytes long (is {size})")
        return False
    return True


def check_together(findings: Findings, path: str, texts: Iterable[str], *, longest_bytes: int) -> None:
    """The texts of one field share one limit."""
    size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    if size > longest_bytes:
        findings.add(path, f"must be at most {longest_bytes} bytes long in all (is {size})")


def check_name(findings: Findings, path: str, name: str, *, longest: int) -> bool:
    """Names that stand in object names, tables and commands. Whether it was found good."""
    if not name:
        findings.add(path, "must be given")
        return False
    if len(name) > longest:
        findings.add(path, f"must be at most {longest} characters long (is {len(name)})")
        return False
    if not _NAME.fullmatch(name):
        findings.add(
            path,
            "must begin with a letter or digit and go on with letters, digits, '.', '_' and '-' "
            f"(is {show(name)})",
        )
        return False
    return True


def check_between(findings: Findings, path: str, value: float, *, low: float, high: float) -> None:
    if not math.isfinite(value):
        findings.add(path, f"must be a number (is {value})")
    elif value < low:
        findings.add(path, f"must be >= {low} (is {value})")
    elif value > high:
        findings.add(path, f"must be <= {high} (is {value})")


def show(text: str) -> str:
    """For a message: quoted, on one line, and not too long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def plain(name: str) -> str:
    """A name as it is; what is no name at all, quoted as `show` does."""
    return name if name.isprintable() and len(name) <= _SHOWN else show(name)
