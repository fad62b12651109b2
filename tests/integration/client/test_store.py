"""The object store and packages, against the S3 server of laptop mode."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from windlass.cli.main import root
from windlass.laptop import Laptop
from windlass.package import upload_packages
from windlass.profile import Profile
from windlass.store import Progress, RemoteFiles, location_of
from windlass_proto.errors import Denied, InvalidRequest, NotFound, Unavailable
from windlass_proto.model.ids import TaskName
from windlass_proto.model.storage import StorageProfiles


def urls_below(store: RemoteFiles, url: str) -> list[str]:
    return [str(one.location) for one in store.listing(location_of(url), recursive=True)]


def copy(store: RemoteFiles, source: str, target: str, *, recursive: bool = False) -> int:
    planned = store.plan_copy(source, target, recursive=recursive)
    for step in planned:
        store.copy(step)
    return len(planned)


def test_a_file_goes_up_is_listed_read_comes_back_and_is_removed(store: RemoteFiles, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "data.bin").write_bytes(content)
    assert copy(store, str(tmp_path / "data.bin"), "oss://windlass/one/") == 1
    (found,) = store.listing(location_of("oss://windlass/one/"))
    assert (str(found.location), found.size_bytes) == ("oss://windlass/one/data.bin", len(content))
    assert b"".join(store.read(found.location)) == content
    assert copy(store, "oss://windlass/one/data.bin", str(tmp_path / "back.bin")) == 1
    assert (tmp_path / "back.bin").read_bytes() == content
    assert store.remove(found.location) == 1
    assert urls_below(store, "oss://windlass/one/") == []


def test_a_folder_goes_both_ways(store: RemoteFiles, tmp_path: Path) -> None:
    for name in ("a.txt", "sub/b ü.txt", "sub/deep/c.txt"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    assert copy(store, str(tmp_path / "from"), "oss://windlass/two/", recursive=True) == 3
    assert copy(store, "oss://windlass/two/", str(tmp_path / "to")) == 3
    back = {
        path.relative_to(tmp_path / "to").as_posix(): path.read_text()
        for path in (tmp_path / "to").rglob("*.txt")
    }
    assert back == {name: name for name in ("a.txt", "sub/b ü.txt", "sub/deep/c.txt")}
    one_level = [
        (str(one.location), one.is_prefix) for one in store.listing(location_of("oss://windlass/two/"))
    ]
    assert sorted(one_level) == [("oss://windlass/two/a.txt", False), ("oss://windlass/two/sub/", True)]
    assert store.remove(location_of("oss://windlass/two/"), recursive=True) == 3


def test_all_three_schemes_mean_the_same_server(store: RemoteFiles, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("same")
    copy(store, str(tmp_path / "x"), "cos://windlass/three/x")
    assert b"".join(store.read(location_of("s3://windlass/three/x"))) == b"same"


def test_mistakes_are_told_in_our_words(store: RemoteFiles, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="oss://windlass/none"):
        b"".join(store.read(location_of("oss://windlass/none")))
    with pytest.raises(NotFound, match="oss://windlass/none"):
        store.plan_copy("oss://windlass/none", str(tmp_path))
    with pytest.raises(NotFound, match="oss://no-such-bucket"):
        list(store.listing(location_of("oss://no-such-bucket/")))
    (tmp_path / "x").write_text("x")
    with pytest.raises(
        NotFound, match=r"^the bucket oss://no-such-bucket/ does not exist; `windlass store ls`"
    ):
        copy(store, str(tmp_path / "x"), "oss://no-such-bucket/")
    with pytest.raises(InvalidRequest, match="--recursive"):
        store.plan_copy(str(tmp_path), "oss://windlass/x/")
    with pytest.raises(InvalidRequest, match="--recursive"):
        store.remove(location_of("oss://windlass/x/"))
    with pytest.raises(InvalidRequest, match="must be an object URL"):
        location_of("http://example/x")


def test_wrong_keys_and_a_server_that_is_gone_are_told_apart(profile: Profile) -> None:
    good = profile.storage().for_scheme("oss")
    wrong = RemoteFiles(StorageProfiles(by_scheme={"oss": replace(good, secret_key="wrong")}))
    with pytest.raises(Denied, match="SignatureDoesNotMatch"):
        wrong.buckets("oss")
    gone = RemoteFiles(StorageProfiles(by_scheme={"oss": replace(good, endpoint="http://127.0.0.1:9")}))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        gone.buckets("oss")


def test_a_package_is_uploaded_once_under_its_digest(
    store: RemoteFiles, profile: Profile, bucket_folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "count.py").write_text("print(1)\n")
    tasks = {TaskName("a"): (program,), TaskName("b"): (program,)}
    urls = upload_packages(tasks, store=store, bucket=profile.bucket)
    assert urls["a"] == urls["b"]
    stored = bucket_folder / location_of(urls["a"]).key
    with tarfile.open(stored) as archive:
        assert archive.getnames() == ["count.py"]
    before = stored.stat().st_mtime_ns
    assert upload_packages(tasks, store=store, bucket=profile.bucket) == urls
    assert stored.stat().st_mtime_ns == before
    assert len(list((bucket_folder / "packages").iterdir())) == 1


def test_how_far_an_upload_is_can_be_shown(store: RemoteFiles, profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "y.py").write_text("print(3)\n")
    shown: list[tuple[str, int]] = []
    moved: list[int] = []

    @contextmanager
    def showing(name: str, size_bytes: int) -> Iterator[Progress]:
        shown.append((name, size_bytes))
        yield moved.append

    tasks = {TaskName("a"): (tmp_path / "y.py",)}
    upload_packages(tasks, store=store, bucket=profile.bucket, showing=showing)
    ((name, size_bytes),) = shown
    assert (name, size_bytes) == ("y.py", sum(moved))


def test_half_a_package_from_an_upload_that_died_is_replaced(
    store: RemoteFiles, profile: Profile, bucket_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.py").write_text("print(2)\n" * 100)
    tasks = {TaskName("a"): (tmp_path / "x.py",)}
    (url,) = upload_packages(tasks, store=store, bucket=profile.bucket).values()
    stored = bucket_folder / location_of(url).key
    whole = stored.read_bytes()
    store.remove(location_of(url))
    (tmp_path / "half").write_bytes(whole[:50])
    store.upload(tmp_path / "half", location_of(url))
    upload_packages(tasks, store=store, bucket=profile.bucket)
    assert b"".join(store.read(location_of(url))) == whole


def test_the_command_line_copies_lists_prints_and_removes(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("hello\n")

    def windlass(*arguments: str) -> str:
        result = CliRunner().invoke(root, ["--profile", str(laptop.profile_file), "store", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    windlass("cp", str(tmp_path / "hello.txt"), "oss://windlass/cli/")
    assert "oss://windlass/cli/hello.txt" in windlass("ls", "oss://windlass/cli")
    assert '"size_bytes": 6' in windlass("ls", "-r", "oss://windlass/cli/", "--json")
    assert "oss://windlass/" in windlass("ls")
    assert windlass("cat", "oss://windlass/cli/hello.txt") == "hello\n"
    assert windlass("rm", "-r", "oss://windlass/cli/") == "removed 1 object\n"
