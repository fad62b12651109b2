"""Gets a task's image onto the node: once, however many attempts want it.

From a registry, from a tar in object storage (of a whole image, or of a file system), or from a registry that
lies in object storage. An image that is there is not asked for again: a new one gets a new tag, or is named
by its digest. What came from object storage is remembered by where it lay and which bytes it was.
"""

import hashlib
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Lock

from windlass_agent.containers.arguments import read_image, registry_of, repository_of
from windlass_agent.containers.base import BadImage, ContainerEngine, EngineUnavailable, Image
from windlass_agent.containers.client import Answer, call
from windlass_agent.containers.local_registry import local_registry
from windlass_agent.mounts.base import Storage, TransferCancelled
from windlass_agent.spool.durable import write_whole
from windlass_proto.model.secrets import Login
from windlass_proto.model.specs import Container
from windlass_proto.model.storage import ObjectLocation, parse_object_url

_ASK_S = 30.0
"""For what the engine answers from this machine alone."""
_LOOK_S = 0.2
_IMAGE_MARKS = frozenset({"manifest.json", "index.json", "oci-layout"})
"""One of these lies in the tar of an image, and hardly in that of a file system."""
_PASSING = (
    *(
        "no such host",
        "connection refused",
        "timeout",
        "deadline exceeded",
        "no route to host",
        "x509",
        "tls:",
    ),
    *("500 internal", "502 bad", "503 service", "504 gateway", "eof", "temporary failure", "toomanyrequests"),
    *("no space left", "cannot connect to the docker daemon", "connection reset", "network is unreachable"),
)
"""Said when the registry or the way to it failed."""
_NO_SUCH = (
    *("manifest unknown", "not found", "does not exist", "access denied", "unauthorized", "denied:"),
    *("authentication required", "no basic auth", "name unknown", "invalid reference", "short-name"),
    *("no matching manifest", "requested access", "image not known", "unsupported manifest"),
)
"""Said when there is no such image for whoever asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    container: Container
    login: Login | None
    storage_for: Callable[[str], Storage]
    """By scheme; raises BadMapping."""
    timeout_s: float
    cancelled: Event


@dataclass(slots=True)
class _Turn:
    """To get one image."""

    lock: Lock = field(default_factory=Lock)
    wanted_by: int = 0


class Images:
    """Of one node. All methods block and may be called by several threads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._turns: dict[str, _Turn] = {}
        self._guard = Lock()

    def obtain(self, engine: ContainerEngine, request: ImageRequest) -> Image:
        """Raises BadImage, EngineUnavailable, TransferCancelled or what storages raise."""
        wanted = request.container
        if wanted.archive:
            return self._from_archive(engine, request, parse_object_url(wanted.archive))
        if wanted.registry:
            return self._from_stored_registry(engine, request, parse_object_url(wanted.registry))
        with self._alone(f"{engine.name} {wanted.image}", request):
            found = look_at(engine, wanted.image)
            return found or self._pulled(engine, request, wanted.image)

    # From a registry

    def _pulled(self, engine: ContainerEngine, request: ImageRequest, reference: str) -> Image:
        if request.login is None:
            return _pull(engine, request, reference, folder=None, is_local=False)
        folder = Path(tempfile.mkdtemp(prefix="login-", dir=self._home))
        try:
            _log_in(engine, request, request.login, registry_of(reference), folder)
            return _pull(engine, request, reference, folder=folder, is_local=False)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _from_stored_registry(
        self, engine: ContainerEngine, request: ImageRequest, location: ObjectLocation
    ) -> Image:
        name = without_host(request.container.image)
        storage = request.storage_for(location.scheme)
        key = f"{engine.name} {storage.profile.endpoint} {location} {name}"
        with self._alone(key, request):
            known = self._known(engine, key)
            if known is not None:
                return known
            with local_registry(
                location, storage.profile, home=self._home, is_cancelled=request.cancelled.is_set
            ) as registry:
                reference = f"{registry.address}/{name}"
                try:
                    image = _pull(engine, request, reference, folder=None, is_local=True)
                except EngineUnavailable as problem:
                    refusal = registry.refusal()
                    if refusal:
                        raise BadImage(f"the registry in {location} cannot be read: {refusal}") from problem
                    raise
            self._keep(engine, key, image)
            call(engine, engine.untag(reference), timeout_s=_ASK_S)
            return image

    # From an archive

    def _from_archive(
        self, engine: ContainerEngine, request: ImageRequest, location: ObjectLocation
    ) -> Image:
        storage = request.storage_for(location.scheme)
        identity = storage.identity_of(location)
        key = f"{engine.name} {storage.profile.endpoint} {location} {identity.name} {request.container.image}"
        with self._alone(key, request):
            known = self._known(engine, key)
            if known is not None:
                return known
            folder = Path(tempfile.mkdtemp(prefix="archive-", dir=self._home))
            try:
                archive = folder / "image.tar"
                storage.fetch_file(location, archive, cancelled=request.cancelled)
                image = self._loaded(engine, request, archive, kept_as=_kept_as(key))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._keep(engine, key, image)
            return image

    def _loaded(
        self, engine: ContainerEngine, request: ImageRequest, archive: Path, *, kept_as: str
    ) -> Image:
        if _is_image(archive, request):
            said = _ask(engine, engine.load(archive), request)
            reference = _choose(said.out, request.container.image)
        else:
            _ask(engine, engine.import_files(archive, kept_as), request)
            reference = kept_as
        image = look_at(engine, reference)
        if image is None:
            raise EngineUnavailable(f"{engine.name} does not show the image that it has just loaded")
        return image

    # What both have in common

    def _known(self, engine: ContainerEngine, key: str) -> Image | None:
        """As it was remembered, when the engine still has it."""
        try:
            image = Image(**json.loads(self._record(key).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return image if look_at(engine, image.image_id) else None

    def _keep(self, engine: ContainerEngine, key: str, image: Image) -> None:
        call(engine, engine.tag(image.image_id, _kept_as(key)), timeout_s=_ASK_S)
        write_whole(self._record(key), json.dumps(asdict(image)).encode())

    def _record(self, key: str) -> Path:
        return self._home / f"image-{_hash(key)}.json"

    @contextmanager
    def _alone(self, key: str, request: ImageRequest) -> Iterator[None]:
        """One attempt gets an image; others that want it wait for that, and no longer than they may."""
        with self._guard:
            turn = self._turns.setdefault(key, _Turn())
            turn.wanted_by += 1
        try:
            give_up_at = time.monotonic() + request.timeout_s
            while not turn.lock.acquire(timeout=_LOOK_S):
                if request.cancelled.is_set() or time.monotonic() > give_up_at:
                    raise TransferCancelled("it was stopped while another attempt got the image")
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            with self._guard:
                turn.wanted_by -= 1
                if not turn.wanted_by:
                    del self._turns[key]


def look_at(engine: ContainerEngine, reference: str) -> Image | None:
    """None = the node does not have it."""
    answer = call(engine, engine.look_at_image(reference), timeout_s=_ASK_S)
    if answer.code:
        return None
    try:
        return read_image(answer.out, reference)
    except (ValueError, LookupError, AttributeError) as problem:
        raise EngineUnavailable(
            f"{engine.name} gave an answer that is none: {answer.out[:80]!r}"
        ) from problem


def why_not_pulled(reference: str, answer: Answer) -> BadImage | EngineUnavailable:
    """What failed on the way may pass; what is not there will not come by itself."""
    said = answer.err.lower()
    why = f"image {reference} could not be pulled: {answer.why}"
    is_passing = any(words in said for words in _PASSING) or not any(words in said for words in _NO_SUCH)
    return EngineUnavailable(why) if is_passing else BadImage(why)


def without_host(image: str) -> str:
    """`localhost:5000/tool:1`, as it is named where it was pushed from, is `tool:1` in its registry."""
    host, separator, rest = image.partition("/")
    is_host = separator and (host == "localhost" or ":" in host or "." in host)
    return rest if is_host else image


def _pull(
    engine: ContainerEngine, request: ImageRequest, reference: str, *, folder: Path | None, is_local: bool
) -> Image:
    answer = _call_for(engine, engine.pull(reference, folder=folder, is_local=is_local), request)
    if answer.code:
        raise why_not_pulled(request.container.image, answer)
    image = look_at(engine, reference)
    if image is None:
        raise EngineUnavailable(f"{engine.name} does not show the image {reference} that it has just pulled")
    return image


def _log_in(
    engine: ContainerEngine, request: ImageRequest, login: Login, registry: str, folder: Path
) -> None:
    answer = _call_for(
        engine, engine.login(registry, login.username, folder), request, given=login.password.encode()
    )
    if answer.code:
        why = f"the login {request.container.login} was not taken by {registry}: {answer.why}"
        said = answer.err.lower()
        if any(words in said for words in _PASSING):
            raise EngineUnavailable(why)
        raise BadImage(why)


def _is_image(archive: Path, request: ImageRequest) -> bool:
    """Or else the tar of a file system."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.removeprefix("./") in _IMAGE_MARKS:
                    return True
                if request.cancelled.is_set():
                    raise TransferCancelled("it was stopped")
    except (tarfile.TarError, OSError, EOFError) as problem:
        raise BadImage(f"{request.container.archive} is no tar of an image: {problem}") from problem
    return False


def _choose(printed: str, wanted: str) -> str:
    """Of what a loaded archive held, by what `load` printed: `Loaded image: tool:1`, one a line."""
    loaded = [line.split(": ", 1)[1].strip() for line in printed.splitlines() if ": " in line]
    if not wanted and len(loaded) == 1:
        return loaded[0]
    full = wanted if repository_of(wanted) != wanted else f"{wanted}:latest"
    for name in loaded:
        if wanted and (name == full or name.endswith(f"/{full}")):
            return name
    held = ", ".join(loaded) or "nothing"
    raise BadImage(
        f"the archive holds {held}; {'name one of them as image' if not wanted else f'not {full}'}"
    )


def _ask(engine: ContainerEngine, arguments: tuple[str, ...], request: ImageRequest) -> Answer:
    answer = _call_for(engine, arguments, request)
    if answer.code == 0:
        return answer
    why = f"{request.container.archive} could not be loaded: {answer.why}"
    if any(words in answer.err.lower() for words in _PASSING):
        raise EngineUnavailable(why)
    raise BadImage(why)


def _call_for(
    engine: ContainerEngine, arguments: tuple[str, ...], request: ImageRequest, *, given: bytes = b""
) -> Answer:
    return call(
        engine,
        arguments,
        timeout_s=request.timeout_s,
        given=given,
        is_cancelled=request.cancelled.is_set,
    )


def _kept_as(key: str) -> str:
    return f"windlass/{_hash(key)}:kept"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]
