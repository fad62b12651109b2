"""What the SDK takes and gives can be named by importing from `windlass`, and both clients take the same."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, NewType, get_args, get_type_hints

import pytest

import windlass
from windlass import BlockingClient, Client

_ASYNC_ONLY = {"page_size"}
"""How a listing is fetched is of no interest to a program that takes one item after the other."""


def test_everything_a_client_takes_or_gives_is_exported() -> None:
    reached: set[Any] = set()
    for method in (*_calls(Client).values(), *_calls(BlockingClient).values()):
        for hint in get_type_hints(method).values():
            _reach(hint, reached)
    names = {one.__name__ for one in reached}
    assert {"AttemptStatus", "FailureKind", "LogState", "NodeState", "ClusterStatus", "NodeId"} <= names
    assert sorted(names - set(windlass.__all__)) == []


def test_every_exported_name_exists() -> None:
    assert [name for name in windlass.__all__ if not hasattr(windlass, name)] == []


@pytest.mark.parametrize("name", sorted(name for name in dir(Client) if not name.startswith("_")))
def test_both_clients_take_the_same(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, BlockingClient))
    assert set(ours) - _ASYNC_ONLY <= set(theirs)


def _calls(client: type) -> dict[str, Callable[..., Any]]:
    return {
        name: call
        for name, call in vars(client).items()
        if inspect.isfunction(call) and (name == "__init__" or not name.startswith("_"))
    }


def _reach(hint: Any, reached: set[Any]) -> None:  # Any: a type form of any kind
    """Our own types in `hint`, and in the fields of those."""
    for part in get_args(hint):
        _reach(part, reached)
    is_ours = isinstance(hint, NewType) or (inspect.isclass(hint) and hint.__module__.startswith("windlass"))
    if not is_ours or hint in reached:
        return
    reached.add(hint)
    if is_dataclass(hint):
        for below in get_type_hints(hint).values():
            _reach(below, reached)
