"""The order of tasks: names that do not exist, and cycles, each named node by node.

In linear time and without recursion: a job may be a chain of ten thousand tasks.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from windlass_proto.checks.words import Findings, nearest, plain, show

Parents = Mapping[str, Sequence[str]]

_COMPARISONS = 10_000
"""Looking for the nearest name compares with every task (30 us each); names beyond this get no hint."""
_SHOWN_OF_A_CYCLE = 50


def check_order(findings: Findings, parents: Parents, paths: Mapping[str, str]) -> None:
    """`parents`: what each task comes after; `paths`: where each task stands in the document."""
    unknown: list[tuple[str, str]] = []
    edges: dict[str, list[str]] = {}
    for name, after in parents.items():
        path = f"{paths[name]}.after"
        times = Counter(after)
        edges[name] = [parent for parent in times if parent in parents and parent != name]
        unknown += [(path, parent) for parent in times if parent not in parents]
        if name in times:
            findings.add(path, f"{plain(name)} cannot come after itself")
        for parent, count in times.items():
            if count > 1:
                findings.add(path, f"names {show(parent)} {count} times; once is enough")
    hints = max(1, _COMPARISONS // max(1, len(parents)))
    for position, (path, parent) in enumerate(unknown):
        guess = nearest(parent, parents) if position < hints else None
        findings.add(
            path, f"there is no task {show(parent)}" + (f"; did you mean {plain(guess)}?" if guess else "")
        )
    place = {name: position for position, name in enumerate(parents)}
    for knot in _knots(edges):
        cycle = _shortest_cycle(min(knot, key=place.__getitem__), edges, set(knot))
        findings.add("tasks", f"form a cycle: {_drawn(cycle)}; take one of these steps away")


def _knots(edges: Parents) -> list[list[str]]:
    """Groups of tasks that all come after each other (Kosaraju's strongly connected components)."""
    children: dict[str, list[str]] = {name: [] for name in edges}
    for name, parents in edges.items():
        for parent in parents:
            children[parent].append(name)
    seen: set[str] = set()
    groups = [_reachable(root, children, seen) for root in reversed(_finishing_order(edges))]
    return [group for group in groups if len(group) > 1]


def _finishing_order(edges: Parents) -> list[str]:
    """Depth first: a task stands after everything that was first reached through it."""
    seen: set[str] = set()
    finished: list[str] = []
    for root in edges:
        trail = [] if root in seen else [(root, iter(edges[root]))]
        seen.add(root)
        while trail:
            name, rest = trail[-1]
            step = next((parent for parent in rest if parent not in seen), None)
            if step is None:
                finished.append(name)
                trail.pop()
            else:
                seen.add(step)
                trail.append((step, iter(edges[step])))
    return finished


def _reachable(root: str, edges: Parents, seen: set[str]) -> list[str]:
    """What can be reached from `root` and was not seen before; all of it is seen now."""
    reached = [] if root in seen else [root]
    seen.add(root)
    for name in reached:  # grows meanwhile
        for step in edges[name]:
            if step not in seen:
                seen.add(step)
                reached.append(step)
    return reached


def _shortest_cycle(start: str, edges: Parents, knot: set[str]) -> list[str]:
    """In the order of running, from `start` to `start`: a -> b means that b comes after a."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while start not in came_from:
        name = waiting.popleft()
        for parent in edges[name]:
            if parent in knot and parent not in came_from:
                came_from[parent] = name
                waiting.append(parent)
    cycle = [start]
    while len(cycle) == 1 or cycle[-1] != start:
        cycle.append(came_from[cycle[-1]])
    return cycle


def _drawn(cycle: Sequence[str]) -> str:
    half = _SHOWN_OF_A_CYCLE // 2
    shown = list(map(plain, cycle if len(cycle) <= 2 * half else [*cycle[:half], *cycle[-half:]]))
    if len(cycle) > 2 * half:
        shown.insert(half, f"({len(cycle) - 2 * half} more)")
    return " -> ".join(shown)
