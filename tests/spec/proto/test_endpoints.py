"""Several coordinators in one setting."""

import pytest

from windlass_proto.endpoints import check_endpoints, grpc_target
from windlass_proto.errors import InvalidRequest


@pytest.mark.parametrize(
    "text", ["batch.example.com:7450", "127.0.0.1:0", "[::1]:7450", "a:1,b:2", "a:1, b:2"]
)
def test_one_address_and_several_are_taken(text: str) -> None:
    assert check_endpoints(text) == text


@pytest.mark.parametrize("text", ["", "nowhere", "a:1,", "a:99999", "http://a:1", "a:1;b:2", "a/b:1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        check_endpoints(text)


@pytest.mark.parametrize("text", ["batch.example.com:7450", "127.0.0.1:7450", "[::1]:7450"])
def test_a_single_address_is_left_to_grpc(text: str) -> None:
    assert grpc_target(text) == text


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:2,127.0.0.1:1", "ipv4:127.0.0.1:2,127.0.0.1:1"),
        ("127.0.0.1:1, no.such.host.invalid:2", "ipv4:127.0.0.1:1"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("[::1]:1,127.0.0.1:2", "ipv4:127.0.0.1:2"),
    ],
)
def test_several_are_tried_in_the_order_in_which_they_stand(text: str, target: str) -> None:
    assert grpc_target(text) == target


def test_names_that_nobody_knows_are_told() -> None:
    with pytest.raises(InvalidRequest, match="none of the addresses"):
        grpc_target("no.such.host.invalid:1,nor.this.invalid:2")
