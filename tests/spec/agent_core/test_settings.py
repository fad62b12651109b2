"""Where the agent's settings come from, and what is wrong with wrong ones."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from windlass_agent.config import load_settings, load_storage, read_join_token
from windlass_agent.settings import AgentSettings, NodeMount
from windlass_proto.errors import InvalidRequest

NEEDED = ["--state", "state", "--coordinator", "localhost:7450"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "SLOTS", "GPUS", "LINK_POLL_WAIT", "LINK_TYPO", "JOIN_TOKEN", "WORK_ISOLATION"):
        monkeypatch.delenv(f"WINDLASS_AGENT_{name}", raising=False)


def problem_of(arguments: list[str]) -> str:
    with pytest.raises(InvalidRequest) as problem:
        load_settings(arguments)
    return str(problem.value)


def test_what_is_not_given_has_a_default() -> None:
    assert load_settings(NEEDED) == AgentSettings(state=Path("state"), coordinator="localhost:7450")


def test_arguments_win_over_variables_and_variables_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('slots = 2\nname = "file"\n[link]\npoll_wait = 7\n[work]\nkill_grace = 3.5\n')
    monkeypatch.setenv("WINDLASS_AGENT_SLOTS", "3")
    monkeypatch.setenv("WINDLASS_AGENT_LINK_POLL_WAIT", "8")
    settings = load_settings([*NEEDED, "--config", str(file), "--slots", "4"])
    assert (settings.slots, settings.name) == (4, "file")
    assert settings.link.poll_wait == timedelta(seconds=8)
    assert settings.work.kill_grace == timedelta(seconds=3.5)


def test_every_problem_is_named_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[link]\npoll_wait = -1\n[work]\nnonsense = 1\n")
    said = problem_of(["--coordinator", "nowhere", "--slots", "0", "--config", str(file)])
    for part in ("state: ", "coordinator: ", "slots: ", "link.poll_wait: ", "work.nonsense: "):
        assert part in said


@pytest.mark.parametrize(
    ("text", "means_s"), [("5m", 300), ("90s", 90), ("0.5s", 0.5), ("250ms", 0.25), ("1h", 3600), ("7", 7)]
)
def test_a_duration_is_written_as_people_do_or_as_seconds(
    text: str, means_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_AGENT_LINK_POLL_WAIT", text)
    file = tmp_path / "agent.toml"
    file.write_text(f'[work]\nkill_grace = "{text}"\n')
    settings = load_settings([*NEEDED, "--config", str(file)])
    assert settings.link.poll_wait == settings.work.kill_grace == timedelta(seconds=means_s)


@pytest.mark.parametrize("text", ["", "5 m", "1w", "m", "PT5M", "nan", "9" * 400, "99999999999d"])
def test_a_wrong_duration_is_told_with_what_would_be_right(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_AGENT_LINK_POLL_WAIT", text)
    assert problem_of(NEEDED) == (
        "settings: link.poll_wait: must be a duration such as 500ms, 30s, 5m, or a number of seconds "
        f"(is {text!r})"
    )


def test_a_problem_is_told_in_words_with_the_value(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        'join_token = ["secret"]\ntypo = 1\n'
        '[link]\npoll_wait = true\ncall_timeout = "0s"\n'
        "[work]\nprefetch = 2\n"
    )
    arguments = ["--coordinator", "nowhere", "--slots", "0", "--config", str(file)]
    said = problem_of(arguments).removeprefix(f"settings ({file}, environment, arguments): ")
    assert sorted(said.split("; ")) == [
        "coordinator: must be HOST:PORT, such as batch.example.com:7450 (is 'nowhere')",
        "join_token: must be a valid string",
        "link.call_timeout: must be longer than 0s (is '0s')",
        "link.poll_wait: must be a duration such as 500ms, 30s, 5m, or a number of seconds (is True)",
        "slots: must be greater than or equal to 1 (is 0)",
        "state: must be given",
        "typo: is not a setting",
        "work.prefetch: must be between 0s and 1s (is 2)",
    ]


def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_AGENT_LINK_TYPO", "1")
    assert "WINDLASS_AGENT_LINK_TYPO" in problem_of(NEEDED)


def test_a_join_token_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_join_token(load_settings([*NEEDED, "--join-token-file", str(file)])) == "secret"


def test_a_join_token_is_not_shown() -> None:
    assert "secret" not in repr(load_settings([*NEEDED, "--join-token", "secret"]))


def test_a_wrong_storage_file_is_named_with_the_table_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "storage.toml"
    file.write_text('[schemes]\noss = "missing"\n')
    with pytest.raises(InvalidRequest, match=r"storage\.toml: schemes\.oss: there is no profile 'missing'"):
        load_storage(file)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("3", ("0", "1", "2")),
        ("0", ()),
        ("1,3", ("1", "3")),
        ("2,", ("2",)),
        ("GPU-8932f937-d72c,MIG-6c2f-1/2", ("GPU-8932f937-d72c", "MIG-6c2f-1/2")),
    ],
)
def test_gpus_are_said_by_their_number_or_one_by_one(said: str, meant: tuple[str, ...]) -> None:
    assert load_settings([*NEEDED, "--gpus", said]).gpus == meant


def test_gpus_in_the_file_are_a_number_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    for text, meant in (("gpus = 2", ("0", "1")), ('gpus = [4, "GPU-ab12"]', ("4", "GPU-ab12"))):
        file.write_text(text)
        assert load_settings([*NEEDED, "--config", str(file)]).gpus == meant


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("-1", "(there is '-1')"),
        ("2000", "must be a number of GPUs"),
        ("first", "(there is 'first')"),
        ("1,1", "must name each GPU once"),
    ],
)
def test_gpus_that_cannot_be_are_refused(said: str, problem: str) -> None:
    assert problem in problem_of([*NEEDED, f"--gpus={said}"])


def test_what_a_node_mounts_and_allows_comes_from_tables_or_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = NodeMount(source="nfs://nas/tools", destination="/tools", options="vers=4.1")
    file = tmp_path / "agent.toml"
    file.write_text(
        '[[mounts]]\nsource = "nfs://nas/tools"\ndestination = "/tools"\noptions = "vers=4.1"\n'
        '[network]\nhosts = ["nas", "*.example.com"]\n'
    )
    settings = load_settings([*NEEDED, "--config", str(file)])
    assert (settings.mounts, settings.network.hosts) == ((mount,), ("nas", "*.example.com"))
    monkeypatch.setenv("WINDLASS_AGENT_MOUNTS", json.dumps([asdict(mount)]))
    monkeypatch.setenv("WINDLASS_AGENT_NETWORK_HOSTS", "nas, *.example.com")
    assert load_settings(NEEDED).mounts == (mount,)
    assert load_settings(NEEDED).network.hosts == ("nas", "*.example.com")


def test_a_nodes_mounts_are_checked_as_a_tasks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [{"source": "nfs://nas", "destination": "/etc", "options": "suid"}]
    monkeypatch.setenv("WINDLASS_AGENT_MOUNTS", json.dumps(wrong))
    said = problem_of(NEEDED)
    assert "[0].source: must be like nfs://host:/path/" in said
    assert "[0].destination: must not lie in /etc" in said


@pytest.mark.parametrize("users", ["", "5", "900000000", "10-20", "2000-1000", "1000-99999999999", "a-b"])
def test_a_range_of_users_that_cannot_be_is_refused(users: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_AGENT_WORK_UID_RANGE", users)
    assert "work.uid_range: must" in problem_of(NEEDED)


def test_isolation_may_be_an_argument() -> None:
    assert load_settings([*NEEDED, "--isolation", "strict"]).work.isolation == "strict"


@pytest.mark.parametrize(
    ("disks", "why"),
    [
        ([{"device": "sdb", "mount_point": "/data"}], "device must be an absolute path"),
        ([{"device": "/dev/sdb", "mount_point": "data"}], "mount_point must be an absolute path"),
        ([{"device": "/dev/sdb", "mount_point": "/"}], "mount_point must be an absolute path"),
        ([{"device": "/dev/sdb", "mount_point": "/a/../b"}], "mount_point must be an absolute path"),
        ([{"device": "/dev/sdb", "mount_point": "/data", "file_system": "ntfs"}], "file_system"),
        ([{"device": "/dev/sdb", "mount_point": "/data", "format": "always"}], "format"),
        ([{"device": f"/dev/sd{name}", "mount_point": "/data"} for name in "bc"], "named twice"),
    ],
)
def test_data_disks_that_cannot_be_are_refused(
    disks: list[dict[str, str]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_AGENT_DISKS", json.dumps(disks))
    assert why in problem_of(NEEDED)
