"""Which isolation an attempt gets, and as which user it runs."""

from itertools import product

import pytest

from windlass_agent.core.isolation import NodeIsolation, UserRange, parse_user_range, sandbox_plan
from windlass_proto.model.specs import Isolation

DEV, STANDARD, STRICT = Isolation.DEV, Isolation.STANDARD, Isolation.STRICT


@pytest.mark.parametrize(("of_node", "asked"), list(product(Isolation, [None, *Isolation])))
def test_a_task_gets_the_stricter_of_what_the_node_gives_and_what_it_asks(
    of_node: Isolation, asked: Isolation | None
) -> None:
    order = [None, DEV, STANDARD, STRICT]
    got = NodeIsolation(profile=of_node).of(asked)
    assert order.index(got) == max(order.index(of_node), order.index(asked))


@pytest.mark.parametrize(("count", "slots"), [(4096, 1), (4096, 256), (4096, 4096), (8, 3), (3, 3)])
def test_no_two_slots_share_a_user(count: int, slots: int) -> None:
    users = UserRange(first=5000, count=count)
    taken = [
        user
        for number in range(slots)
        for first, each in [users.of_slot(number, slots=slots)]
        for user in range(first, first + each)
    ]
    assert len(set(taken)) == len(taken)
    assert min(taken) >= users.first
    assert max(taken) <= users.last


def test_a_range_is_parted_among_agents_without_overlap() -> None:
    parts = UserRange(first=1000, count=100).parts(30)
    assert [(part.first, part.last) for part in parts] == [(1000, 1029), (1030, 1059), (1060, 1089)]
    assert UserRange(first=1000, count=20).parts(30) == (UserRange(first=1000, count=20),)


def test_a_range_is_read_as_it_is_written() -> None:
    assert parse_user_range("1000-1999") == UserRange(first=1000, count=1000)


def test_commands_of_the_agents_own_user_have_no_sandbox() -> None:
    assert sandbox_plan(DEV) is None
    assert sandbox_plan(STRICT, binds=[("/a", "/b")], temporary="/t") == {
        "profile": "strict",
        "binds": [["/a", "/b"]],
        "tmp": "/t",
    }
