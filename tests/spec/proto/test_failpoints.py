"""A crash is asked for by a test, and by nobody else by accident."""

from windlass_proto.failpoints import asked_for


def test_a_failpoint_counts_in_test_builds_only() -> None:
    asked = {"WINDLASS_FAILPOINT": "coord.claim.after_commit:2"}
    assert asked_for(asked) == ""
    assert asked_for(asked | {"WINDLASS_TEST_BUILD": "0"}) == ""
    assert asked_for(asked | {"WINDLASS_TEST_BUILD": "1"}) == "coord.claim.after_commit:2"
    assert asked_for({"WINDLASS_TEST_BUILD": "1"}) == ""
