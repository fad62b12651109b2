"""The folder of a replay: what the attempt's own directory was on its node, and the program that runs it.

replay.json run.py     what is run, and by what
work/ tmp/             the command's working directory, with the package in it, and its TMPDIR
mounts/N/              what it finds under absolute paths
image.tar              the container's image, when the task brought one
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from windlass.package import Showing
from windlass.replay import run_here
from windlass.replay.plan import IMAGE, TEMPORARY, WORK, ReplayPlan
from windlass.store import RemoteFiles, location_of
from windlass_proto.errors import Conflict, InvalidRequest, NotFound, Unavailable
from windlass_proto.model.specs import TaskSpec
from windlass_proto.unpack.launch import Verdict, unpack_archive
from windlass_proto.unpack.limits import Limits

_LIMITS = Limits(unpacked_bytes=8 << 30, entries=200_000, ratio=250)
"""As nodes have them without settings."""

Say = Callable[[str], None]


def prepare_folder(
    folder: Path, plan: ReplayPlan, spec: TaskSpec, *, store: RemoteFiles, say: Say, showing: Showing
) -> None:
    """Everything but the inputs. Raises Conflict for a folder that holds something."""
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty: name another folder with --directory, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WORK, TEMPORARY):
        (folder / name).mkdir()
    if spec.package:
        _unpack(folder, spec.package, store=store, say=say, showing=showing)
    for place in (*plan.inputs, *plan.outputs):
        (folder / place.folder).mkdir(parents=True, exist_ok=True)
    if spec.container is not None and spec.container.registry:
        raise InvalidRequest(
            "an image of a registry in object storage cannot be replayed; use one of a registry or an archive"
        )
    if spec.container is not None and spec.container.archive:
        _download(spec.container.archive, folder / IMAGE, store=store, say=say, showing=showing)
    document = folder / run_here.PLAN
    document.touch(0o600)
    document.write_text(plan.to_json(), encoding="utf-8")
    shutil.copy(run_here.__file__, folder / "run.py")


def _unpack(folder: Path, url: str, *, store: RemoteFiles, say: Say, showing: Showing) -> None:
    archive = folder / "package"
    _download(url, archive, store=store, say=say, showing=showing)
    try:
        with archive.open("rb") as file:
            outcome = unpack_archive(file, folder / WORK, _LIMITS, is_cancelled=lambda: False)
    except OSError as error:
        raise Unavailable(f"cannot unpack the package {url}: {error}") from error
    finally:
        archive.unlink()
    if outcome.verdict is not Verdict.UNPACKED:
        raise InvalidRequest(f"the package {url} cannot be unpacked: {outcome.said}")


def _download(url: str, target: Path, *, store: RemoteFiles, say: Say, showing: Showing) -> None:
    source = location_of(url)
    size_bytes = store.size_of(source)
    if size_bytes is None:
        raise NotFound(f"{url} is not there any more: what the attempt ran cannot be had")
    say(f"fetching {url}")
    with showing(source.key.rpartition("/")[2], size_bytes) as progress:
        store.download(source, target, progress=progress)
