"""Tests for a kernel that this machine may lack: `make guest` boots one and runs them there."""

import os

import pytest

from tests.support.guest import INSIDE


@pytest.fixture(scope="session", autouse=True)
def inside() -> None:
    if INSIDE not in os.environ:
        pytest.skip("runs only in a guest: make guest")
