"""The documentation as data: its pages, their code, tables, headings and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_NEXT_COMMAND = re.compile(r"\s*(?:&&|;|\||\$\()\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    page: Path
    language: str
    text: str


def pages() -> list[Path]:
    """README.md and everything below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[CodeBlock]:
    """The fenced code of one language, of all pages."""
    return [block for page in pages() for block in _blocks_of(page) if block.language == language]


def inline_code() -> Iterator[tuple[Path, str]]:
    """What stands between single backticks, outside of fences."""
    for page in pages():
        for code in _INLINE.findall(_prose(page)):
            yield page, code


def command_lines() -> Iterator[tuple[Path, str]]:
    """Every command line that is shown, one program each."""
    for page in pages():
        for block in _blocks_of(page):
            if block.language in ("sh", "console"):
                for line in _shown_lines(block):
                    yield from ((page, part) for part in _programs(line))
        for code in _INLINE.findall(_prose(page)):
            yield from ((page, part) for part in _programs(code))


def table(header: str) -> dict[str, list[str]]:
    """The rows of all tables whose first column is called `header`: name in backticks -> other cells."""
    found: dict[str, list[str]] = {}
    for page in pages():
        rows: Iterator[str] = iter(page.read_text(encoding="utf-8").splitlines())
        for line in rows:
            if line.startswith(f"| {header} |"):
                next(rows)
                for row in rows:
                    if not row.startswith("|"):
                        break
                    first, *others = (cell.strip() for cell in row.strip("|").split("|"))
                    found.update((name, others) for name in _INLINE.findall(first))
    return found


def links() -> Iterator[tuple[Path, str]]:
    """Targets of links that do not leave the repository."""
    for page in pages():
        for target in _LINK.findall(_prose(page)):
            if "://" not in target:
                yield page, target


def anchors(page: Path) -> set[str]:
    """What `page.md#...` may name: its headings, as the usual renderers spell them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _blocks_of(page: Path) -> Iterator[CodeBlock]:
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        yield CodeBlock(page=page, language=language, text=text)


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _shown_lines(block: CodeBlock) -> list[str]:
    joined = block.text.replace("\\\n", " ")
    if block.language == "sh":
        return joined.splitlines()
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def _programs(line: str) -> list[str]:
    """Cut where the shell would begin another program; what stands in quotes is no such place."""
    masked = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: "q" * len(quoted.group()), line)
    cuts = [(match.start(), match.end()) for match in _NEXT_COMMAND.finditer(masked)]
    starts = [0, *(end for _, end in cuts)]
    ends = [*(start for start, _ in cuts), len(line)]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
