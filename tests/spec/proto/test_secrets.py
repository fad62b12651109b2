"""Documents of secrets: what is wrong with them is said without what is in them."""

import json

import pytest

from windlass_proto import convert
from windlass_proto.checks import SpecLimits
from windlass_proto.checks.secrets import check_secret
from windlass_proto.checks.words import Findings
from windlass_proto.model.secrets import Login, OpenedSecret, SecretKind, read_login, read_storage
from windlass_proto.model.storage import StorageProfile

CANARY = "canary-5f2a"
KEYS = {"access_key": "id", "secret_key": CANARY}


def problems_of(kind: SecretKind, document: object, *, name: str = "ours") -> list[str]:
    findings = Findings()
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    check_secret(findings, name, kind, text, limits=SpecLimits())
    return [str(problem) for problem in findings.problems]


def test_a_storage_is_a_profile_as_in_a_storage_file() -> None:
    document = {"endpoint": "https://s3.example.com", "region": "r", "path_style": False} | KEYS
    assert problems_of(SecretKind.STORAGE, document) == []
    assert read_storage(json.dumps(document).encode()) == StorageProfile(
        endpoint="https://s3.example.com", region="r", access_key="id", secret_key=CANARY, path_style=False
    )


def test_a_login_is_user_and_password() -> None:
    document = {"username": "me", "password": f"{CANARY}\n"}
    assert problems_of(SecretKind.LOGIN, document) == []
    assert read_login(json.dumps(document).encode()) == Login(username="me", password=f"{CANARY}\n")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"{" + CANARY.encode(), "document: must be a JSON object"),
        (b"[" * 10_000, "document: must be a JSON object"),
        (CANARY, "document: must be a JSON object"),
        (b"\xff", "document: must be a JSON object"),
        (b" " * 20_000, "document: must be at most 16384 bytes long (is 20000)"),
        (KEYS, "document: endpoint: is missing"),
        (
            {"endpoint": "", "token": CANARY},
            "document: token: unknown key; known are endpoint, region, access_key, secret_key, path_style",
        ),
        ({"endpoint": "", "secret_key": [CANARY]}, "document: secret_key: must be a text"),
        ({"endpoint": CANARY}, "document: endpoint: must begin with http:// or https://, or be empty"),
        (
            {"endpoint": f"http://me:{CANARY}@x"},
            "document: endpoint: must not hold credentials; they are access_key and secret_key",
        ),
        (
            {"endpoint": "", "access_key": "id", "secret_key": f"{CANARY}\n"},
            "document: secret_key: must hold printable ASCII characters without spaces only",
        ),
        (
            {"endpoint": "", "secret_key": CANARY},
            "document: access_key and secret_key: both or none must be given",
        ),
    ],
)
def test_a_wrong_storage_is_named_by_its_key_alone(document: object, problem: str) -> None:
    assert problems_of(SecretKind.STORAGE, document) == [problem]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"username": "me"}, "document: password: must be a text that is not empty"),
        ({"username": "", "password": CANARY}, "document: username: must be a text that is not empty"),
        (
            {"username": "m:e", "password": CANARY},
            "document: username: must hold printable characters and no ':'",
        ),
        (
            {"username": "me", "password": f"{CANARY}\0"},
            "document: password: must not contain a NUL character",
        ),
        (
            {"username": "me", "password": CANARY, "x": CANARY},
            "document: x: unknown key; known are username, password",
        ),
    ],
)
def test_a_wrong_login_is_named_by_its_key_alone(document: object, problem: str) -> None:
    assert problems_of(SecretKind.LOGIN, document) == [problem]


def test_a_secret_has_a_name_like_a_task() -> None:
    (problem,) = problems_of(SecretKind.STORAGE, {"endpoint": ""}, name="a/b")
    assert problem.startswith("name: must begin with a letter or digit")


def test_what_is_open_does_not_show_itself() -> None:
    opened = OpenedSecret(name="ours", kind=SecretKind.LOGIN, document=CANARY.encode())
    values = [opened, Login(username="me", password=CANARY), StorageProfile(endpoint="", secret_key=CANARY)]
    assert CANARY not in repr(values)


def test_an_opened_secret_survives_the_wire() -> None:
    opened = OpenedSecret(name="ours", kind=SecretKind.STORAGE, document=b"\0\xff")
    assert convert.opened_secret_from_wire(convert.opened_secret_to_wire(opened)) == opened
