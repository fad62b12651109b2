"""Tables that other programs read, and their short forms."""

import pytest

from windlass.cli.nodes import short_containment
from windlass.cli.render import print_table


def test_a_table_in_a_pipe_has_no_blanks_at_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "reason"), [("a", ""), ("longer", "two words"), ("b", "x" * 300)])
    assert capsys.readouterr().out.splitlines() == [
        "NAME    REASON",
        "a",
        "longer  two words",
        f"b       {'x' * 300}",
    ]


@pytest.mark.parametrize(
    ("described", "shown"),
    [
        ("weak: process groups and adopted orphans only (no cgroup tree is writable: EROFS)", "weak"),
        ("cgroup v2, memory and pids limits", "cgroup v2, memory and pids limits"),
        ("cgroup v1, memory limits (pids: not mounted)", "cgroup v1, memory limits"),
        (
            "cgroup v1, no limits (no memory: x; no pids: y); standard isolation (no strict: why; and so on)",
            "cgroup v1, no limits; standard isolation",
        ),
        (
            "weak: process groups only (why); dev isolation (no standard: it is not root)",
            "weak; dev isolation",
        ),
        ("", ""),
    ],
)
def test_a_table_tells_containment_without_its_reasons(described: str, shown: str) -> None:
    assert short_containment(described) == shown
