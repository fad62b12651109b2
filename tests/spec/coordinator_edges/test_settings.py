"""What the coordinator makes of its settings file, environment and arguments."""

from datetime import timedelta
from pathlib import Path

import pytest

from windlass_coordinator.config import LogLevel, Settings, load_settings
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.settings_tree import HostPort, InvalidSettings


def load(*arguments: str, **environment: str) -> Settings:
    return load_settings(["--data", "/data", *arguments], environment=environment)


def problems(*arguments: str, **environment: str) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load(*arguments, **environment)
    return [str(problem) for problem in caught.value.problems]


def a_file(tmp_path: Path, text: str) -> str:
    file = tmp_path / "coordinator.toml"
    file.write_text(text)
    return str(file)


def test_only_the_data_directory_has_to_be_given() -> None:
    assert load() == Settings(data=Path("/data"))

    with pytest.raises(InvalidSettings, match=r"^data: say where the data are to lie: --data DIR$"):
        load_settings([], environment={})


def test_by_default_only_this_machine_can_connect() -> None:
    assert [str(load().listen), str(load().http)] == ["127.0.0.1:7450", "127.0.0.1:7451"]


def test_the_environment_wins_over_the_file_and_arguments_win_over_both(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        'listen = "127.0.0.1:1"\nhttp = "127.0.0.1:1"\nlog_level = "error"\n[lease]\nreplace_after = "90s"\n',
    )

    settings = load(
        "--config",
        file,
        "--listen",
        "127.0.0.1:3",
        WINDLASS_COORDINATOR_LISTEN="127.0.0.1:2",
        WINDLASS_COORDINATOR_HTTP="127.0.0.1:2",
    )

    assert settings == Settings(
        data=Path("/data"),
        listen=HostPort(host="127.0.0.1", port=3),
        http=HostPort(host="127.0.0.1", port=2),
        log_level=LogLevel.ERROR,
        lease=LeasePolicy(replace_after=timedelta(seconds=90)),
    )


def test_settings_in_sections_are_reached_from_the_environment_too() -> None:
    settings = load(
        WINDLASS_COORDINATOR_LEASE_POLL_WAIT="500ms",
        WINDLASS_COORDINATOR_LEASE_HEARTBEATS_PER_S="12.5",
        WINDLASS_COORDINATOR_RETRY_INFRA_LIMIT="3",
        WINDLASS_COORDINATOR_LIMITS_TASKS="7",
    )

    assert settings.lease.poll_wait == timedelta(milliseconds=500)
    assert settings.lease.heartbeats_per_s == 12.5
    assert (settings.retry.infra_limit, settings.limits.tasks) == (3, 7)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = a_file(tmp_path, 'log_level = "debug"\n')

    assert load(WINDLASS_COORDINATOR_CONFIG=file).log_level is LogLevel.DEBUG


def test_all_problems_are_told_at_once_with_their_place(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        'lissten = "x"\nretry = 3\n[lease]\npoll_wait = 30\nreplace_afer = "5m"\n[limits]\ntasks = -1\n',
    )

    found = problems("--config", file, "--http", "x", WINDLASS_COORDINATOR_RETRY_BAES="1s", OTHER="1")

    assert found == [
        f"lissten: is not a setting: did you mean listen? ({file})",
        f"retry: must be a section with settings ({file})",
        "lease.poll_wait: must be a duration above 0 with its unit, such as 500ms, 30s, 5m, 24h (is 30) "
        f"({file})",
        f"lease.replace_afer: is not a setting: did you mean replace_after? ({file})",
        f"limits.tasks: must be a whole number, 0 or more (is -1) ({file})",
        "WINDLASS_COORDINATOR_RETRY_BAES: is not a setting: did you mean WINDLASS_COORDINATOR_RETRY_BASE? "
        "(environment)",
        "http: must be HOST:PORT, such as 127.0.0.1:7450 (is 'x') (command line)",
    ]


@pytest.mark.parametrize("address", ["0.0.0.0:7450", "[::]:7450", "10.0.0.1:7450", "batch.example:7450"])
def test_an_address_that_others_can_reach_needs_to_be_allowed(address: str) -> None:
    assert problems("--listen", address) == [
        f"listen: {address} can be reached from other machines and there is no TLS yet: "
        "use 127.0.0.1, or allow it with --insecure-listen"
    ]
    assert str(load("--listen", address, "--insecure-listen").listen) == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:7450", "localhost:7450"])
def test_loopback_addresses_are_fine(address: str) -> None:
    assert str(load("--listen", address, "--http", address).listen) == address


@pytest.mark.parametrize("address", ["7450", ":7450", "127.0.0.1", "127.0.0.1:65536", "::1:7450", "a:b:1"])
def test_other_texts_are_no_addresses(address: str) -> None:
    assert problems("--http", address) == [
        f"http: must be HOST:PORT, such as 127.0.0.1:7450 (is {address!r}) (command line)"
    ]


@pytest.mark.parametrize("text", ["0s", "-1s", "5", "5 m", "1w", "999999999999d", ""])
def test_other_texts_are_no_durations(text: str) -> None:
    assert len(problems(WINDLASS_COORDINATOR_RETRY_BASE=text)) == 1


def test_settings_that_contradict_each_other_are_told() -> None:
    assert problems(
        WINDLASS_COORDINATOR_LEASE_SHORTEST_INTERVAL="2m", WINDLASS_COORDINATOR_RETRY_BASE="1h"
    ) == [
        "lease.shortest_interval: must not be longer than lease.longest_interval",
        "retry.base: must not be longer than retry.ceiling",
    ]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    assert problems("--config", "/nowhere.toml") == ["cannot read /nowhere.toml: No such file or directory"]

    broken = problems("--config", a_file(tmp_path, "listen ="))
    assert len(broken) == 1
    assert "is not TOML" in broken[0]
