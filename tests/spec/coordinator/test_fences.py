"""Numbers that only grow."""

from hypothesis import given
from hypothesis import strategies as st

from windlass_coordinator.core.fences import fence_floor

incarnations = st.integers(1, 2**20)


@given(incarnations, st.integers(1, 2**40 - 1))
def test_every_fence_of_an_incarnation_is_below_all_of_the_next(incarnation: int, nth: int) -> None:
    assert fence_floor(incarnation) + nth < fence_floor(incarnation + 1) + 1


@given(incarnations)
def test_a_fence_fits_into_what_databases_call_an_integer(incarnation: int) -> None:
    assert fence_floor(incarnation) + 2**40 < 2**63
