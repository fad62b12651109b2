"""Kinds of values on the command line: durations, sizes, environments, mappings."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import click

from windlass.quantities import parse_duration, parse_size
from windlass.shorthand import parse_docker, parse_env, parse_mappings

T = TypeVar("T")


def _told(parse: Callable[[str], T], name: str) -> Callable[[str], T]:
    """`parse`, whose ValueError says what would be right, as click wants it; `name` stands in the help."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    read.__name__ = name
    return read


def _positive_duration(text: str) -> timedelta:
    duration = parse_duration(text)
    if duration <= timedelta():
        raise ValueError(f"must be longer than 0 (is {text!r})")
    return duration


DURATION = _told(_positive_duration, "duration")
SIZE = _told(parse_size, "size")
CONTAINER = _told(parse_docker, "image")
ENV = _told(parse_env, "name:value")
MAPPING = _told(parse_mappings, "mapping")
