"""What keeps the repository readable: sizes, names, and a map in every root.

Style is for people; these are the few rules of it that a machine can count.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = ("proto", "client", "agent", "coordinator", "images", "packer", "tests", "benchmarks")
PACKAGES = (
    "proto/windlass_proto",
    "client/windlass",
    "agent/windlass_agent",
    "coordinator/windlass_coordinator",
)
CODE = (*PACKAGES, "tests", "examples", "benchmarks")

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
NAMES_THAT_SAY_NOTHING = frozenset(
    {"common", "utils", "util", "helpers", "misc", "manager", "service", "models", "types", "handlers"}
)


def modules(*places: str) -> Iterator[Path]:
    """Our own Python files; what protoc wrote is not read by people."""
    for place in places:
        for path in sorted((REPOSITORY / place).rglob("*.py")):
            if "_pb2" not in path.name and not path.is_relative_to(REPOSITORY / ".venv"):
                yield path


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


def foreign_imports(path: Path, *, own: str) -> set[str]:
    """What a file imports that is neither in the standard library nor in the package `own`."""
    return {
        name
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(f"{own}.")
    }


def test_there_is_code_to_look_at() -> None:
    for place in PACKAGES:
        assert any(modules(place)), f"no module found below {place}"


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*CODE)}
    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{shown(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in modules(*CODE)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    }
    assert long == {}


def test_a_class_name_means_one_thing_in_the_whole_repository() -> None:
    places = defaultdict(list)
    for path in modules(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(shown(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = {
        shown(path)
        for path in modules(*CODE)
        if NAMES_THAT_SAY_NOTHING & set(path.relative_to(REPOSITORY).with_suffix("").parts)
    }
    assert named == set()


@pytest.mark.parametrize("root", ROOTS)
def test_every_root_has_a_map_for_those_who_come_first(root: str) -> None:
    text = (REPOSITORY / root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "## To add" in text


@pytest.mark.parametrize("package", PACKAGES)
def test_every_root_holds_exactly_one_import_package(package: str) -> None:
    root = REPOSITORY / Path(package).parent
    assert [path.parent.name for path in sorted(root.glob("*/__init__.py"))] == [Path(package).name]


def test_words_and_their_values_need_the_standard_library_only() -> None:
    foreign = {
        shown(path): names
        for path in modules("proto/windlass_proto/model")
        if (names := foreign_imports(path, own="windlass_proto.model"))
    }
    assert foreign == {}


def test_the_keeper_needs_the_standard_library_and_itself_only() -> None:
    keeper = list(modules("agent/windlass_agent/keeper"))
    foreign = {
        shown(path): names for path in keeper if (names := foreign_imports(path, own="windlass_agent.keeper"))
    }
    assert keeper
    assert foreign == {}
