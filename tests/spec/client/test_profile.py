"""Where a client finds its coordinator."""

from pathlib import Path

import pytest

from windlass.profile import Profile, find_profile, load_profile
from windlass_proto.errors import Denied, InvalidRequest, NotFound


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_paths_in_a_profile_count_from_its_own_folder(tmp_path: Path) -> None:
    written(tmp_path / "p" / "token", "secret\n")
    path = written(
        tmp_path / "p" / "client.toml", 'coordinator = "h:1"\ntoken_file = "token"\nstorage_file = "s.toml"\n'
    )
    profile = load_profile(path)
    assert profile == Profile(
        coordinator="h:1", token_file=tmp_path / "p" / "token", storage_file=tmp_path / "p" / "s.toml"
    )
    assert profile.token() == "secret"


def test_the_profile_given_wins_over_the_environment_and_that_over_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WINDLASS_PROFILE", raising=False)
    monkeypatch.setenv("WINDLASS_DATA", str(tmp_path / "data"))
    written(tmp_path / "data" / "client.toml", 'coordinator = "laptop:1"\n')
    assert find_profile().coordinator == "laptop:1"
    monkeypatch.setenv("WINDLASS_PROFILE", str(written(tmp_path / "env.toml", 'coordinator = "env:1"\n')))
    assert find_profile().coordinator == "env:1"
    given = written(tmp_path / "given.toml", 'coordinator = "given:1"\n')
    assert find_profile(given).coordinator == "given:1"


def test_without_any_profile_the_message_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WINDLASS_PROFILE", raising=False)
    monkeypatch.setenv("WINDLASS_DATA", str(tmp_path))
    with pytest.raises(NotFound, match="windlass up"):
        find_profile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('coordinator = "h:1"\ntokenfile = "x"\n', "unknown key 'tokenfile'"),
        ("coordinator = 7\n", "coordinator must be a text"),
        ("", "coordinator is missing"),
        ("= broken", "not valid TOML"),
    ],
)
def test_a_wrong_profile_is_told_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "client.toml", text)
    with pytest.raises(InvalidRequest, match=message) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


def test_a_token_that_cannot_be_read_is_denied_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(Denied, match="no-token"):
        Profile(coordinator="h:1", token_file=tmp_path / "no-token").token()
