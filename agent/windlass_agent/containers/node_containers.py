"""The node's containers: its engine, the images that it has, and what an agent before this one left."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import structlog

from windlass_agent.containers.arguments import CLIENT_PATH
from windlass_agent.containers.base import ContainerEngine, EngineSetting, EngineUnavailable, Image
from windlass_agent.containers.client import call
from windlass_agent.containers.detection import find_engine
from windlass_agent.containers.images import ImageRequest, Images
from windlass_agent.containers.outcome import is_in_container, read_outcome
from windlass_agent.containers.run_file import removal_of
from windlass_agent.spool.attempt_dir import attempt_name
from windlass_proto.model.ids import AttemptRef

_ASK_S = 30.0
_REMOVE_S = 45.0
"""For one try to remove a container: the program for it gives the engine less."""
_TRIES_S = 60.0
"""For all tries together; then the container is told to be stuck."""
_PAUSE_S = 1.0

log = structlog.get_logger()


class NodeContainers:
    """All methods block and may be called by several threads."""

    def __init__(self, setting: EngineSetting, *, home: Path, place: str) -> None:
        """`place` names the state directory: containers of another one are another agent's."""
        self._setting, self._home, self._place = setting, home, place
        self._engine: ContainerEngine | None = None
        self._guard = Lock()
        self._images = Images(home)
        self.label = f"windlass.place={place}"

    def name_of(self, ref: AttemptRef) -> str:
        return f"windlass-{self._place}-{attempt_name(ref)}"

    def engine(self) -> ContainerEngine:
        """Looked for when it is first needed, and until there is one. Raises EngineUnavailable."""
        with self._guard:
            if self._engine is None:
                self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._engine = find_engine(self._setting, self._home)
                log.info("containers.engine_found", engine=self._engine.name)
            return self._engine

    def obtain(self, request: ImageRequest) -> Image:
        """Raises BadImage, EngineUnavailable, TransferCancelled or what storages raise."""
        return self._images.obtain(self.engine(), request)

    def end(self, directory: Path) -> bool:
        """Whether nothing runs any more in the container of the attempt with this directory; makes it so."""
        give_up_at = time.monotonic() + _TRIES_S
        while is_in_container(directory) and not read_outcome(directory).removed:
            if time.monotonic() > give_up_at:
                return False
            try:
                subprocess.run(
                    removal_of(directory),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"PATH": CLIENT_PATH},
                    timeout=_REMOVE_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired):
                pass  # It is tried again.
            if not read_outcome(directory).removed:
                time.sleep(_PAUSE_S)
        return True

    def ours(self) -> list[str] | None:
        """Names of all containers of this agent, and of those before it; None = the engine does not tell.

        Without a trace of containers nobody is asked: most nodes never have one.
        """
        if not self._home.exists():
            return []
        try:
            engine = self.engine()
            listed = call(engine, engine.list_labelled(self.label), timeout_s=_ASK_S)
            if listed.code:
                raise EngineUnavailable(listed.why)
        except EngineUnavailable as problem:
            log.warning("containers.not_looked_at", why=str(problem))
            return None
        return listed.out.split()

    def remove(self, names: Sequence[str]) -> None:
        """Those that nobody knows any more."""
        for name in names:
            try:
                engine = self.engine()
                answer = call(engine, engine.remove(name), timeout_s=_REMOVE_S)
                why = answer.why if answer.code else ""
            except EngineUnavailable as problem:
                why = str(problem)
            if why:
                log.warning("container.not_removed", container=name, why=why)
            else:
                log.warning("container.removed", container=name)
