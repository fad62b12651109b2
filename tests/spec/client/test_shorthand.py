"""The short forms of `-e`, `-r` and `-w`."""

import pytest

from windlass.shorthand import parse_env, parse_mapping, parse_mappings


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("K:V", {"K": "V"}),
        ("K=V", {"K": "V"}),
        ("K:V,K2:V2", {"K": "V", "K2": "V2"}),
        ("LIST:a,b,c", {"LIST": "a,b,c"}),
        ("URL:http://x:80/y=z", {"URL": "http://x:80/y=z"}),
        ("EMPTY:", {"EMPTY": ""}),
    ],
)
def test_an_environment_is_names_and_values(text: str, env: dict[str, str]) -> None:
    assert parse_env(text) == env


@pytest.mark.parametrize("text", ["", "K", ":V", "9:x"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:VALUE"):
        parse_env(text)


@pytest.mark.parametrize(
    "text",
    [
        "oss://b/d/:/home/x",
        "/home/x:oss://b/d/",
        "oss://b/d/:/home/x:true",
        "/home/x:oss://b/d/:false",
        "oss://b/d/:::/home/x",
        "/home/x:::oss://b/d/",
    ],
)
def test_a_mapping_may_stand_in_either_order_with_the_vendors_marks(text: str) -> None:
    assert parse_mapping(text) == ("oss://b/d/", "/home/x")


def test_a_relative_directory_lies_in_the_work_directory() -> None:
    assert parse_mappings("oss://b/d/:in,s3://c/e/:more") == [("oss://b/d/", "in"), ("s3://c/e/", "more")]


@pytest.mark.parametrize(
    "text", ["/a:/b", "oss://a/:oss://b/", "oss://b/d/", ":oss://b/", "oss://:/x", "nfs://a/:/b"]
)
def test_what_does_not_join_an_object_url_and_a_directory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one object URL and one directory"):
        parse_mapping(text)
