"""The command of a slot whose task runs in a container: makes it, starts it, waits for it, removes it.

A program of its own, `python -I -S supervise.py RUN.json [remove]`; it loads the standard library only. The
keeper knows processes; a container's belong to its engine, so this process stands for them: it has the
container's output and exit code, passes SIGTERM on, and leaves the container removed, whatever happened. What
an exit code cannot say (out of memory, nothing was started, the engine went away) it writes beside itself,
for `outcome`. When it is killed before all of that, the keeper starts it again with `remove`, and the agent
does, should the keeper be gone too.

RUN.json: program, env (of the engine's client), create, start, remove, name, id_file, env_file, outcome.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType

TYPE_CHECKING = False
"""Not imported: it would cost each start a few milliseconds."""
if TYPE_CHECKING:
    from typing import Any

    Facts = dict[str, Any]  # as JSON gives it
else:
    Facts = dict

ENGINE_FAILED = 125
"""Exit code when the container could not be made, as the engines' own clients have it."""
_CALL_S = 30.0
"""For the engine to answer; it is on this machine."""
_REMOVE_S = 20.0
"""For the engine to remove a container; then its processes are ended without it."""
_VANISH_S = 10.0
"""For killed processes to be gone."""
_CHILDREN_S = 5.0
"""For the engine's own processes of this container to end."""
_LOOK_S = 0.02
_SIGNAL_TRIES = 20
"""A container that is being started takes no signal yet."""
_SIGNAL_PAUSE_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36
_WHY_CHARS = 500


class Engine:
    def __init__(self, run: Facts) -> None:
        self._program: list[str] = run["program"]
        self._env: dict[str, str] = run["env"]

    def call(
        self, arguments: list[str], within_s: float = _CALL_S
    ) -> "subprocess.CompletedProcess[str] | None":
        """None = it did not answer. In a session of its own: a signal to the command is not one to it."""
        try:
            return subprocess.run(
                [*self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=self._env,
                cwd="/",
                timeout=within_s,
                start_new_session=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None

    def attach(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        """With our own output, which the container's becomes."""
        return subprocess.Popen(
            [*self._program, *arguments],
            stdin=subprocess.DEVNULL,
            env=self._env,
            cwd="/",
            start_new_session=True,
        )


class ContainerSupervisor:
    def __init__(self, run: Facts) -> None:
        self._run = run
        self._engine = Engine(run)
        self._outcome: Facts = {}
        self._client: subprocess.Popen[bytes] | None = None
        self._is_asked_to_end = False

    def main(self) -> int:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        made = self._engine.call(self._run["create"], within_s=2 * _CALL_S)
        _unlink(self._run["env_file"])
        if made is None or made.returncode:
            self._outcome["failed"] = _why(made)
            code = ENGINE_FAILED
        elif self._is_asked_to_end:
            code = 128 + signal.SIGTERM
        else:
            code = self._wait()
        self._remove()
        return code

    def _wait(self) -> int:
        """The container's exit code."""
        client = self._client = self._engine.attach(self._run["start"])
        if self._is_asked_to_end:  # between its making and now
            self._pass_on()
        client.wait()
        state = self._state()
        if state is None or state.get("Running"):
            self._outcome["lost"] = (
                "the container engine went away while it ran"
                if state is None
                else ("the container engine gave its output up while it ran")
            )
            return ENGINE_FAILED
        self._outcome["oom"] = bool(state.get("OOMKilled"))
        if state.get("Status") == "created":
            return self._not_started(str(state.get("Error") or ""), client.returncode)
        return int(state["ExitCode"])

    def _not_started(self, error: str, client_code: int) -> int:
        """The engine has said why to stderr, which is in the task's log; docker keeps it too."""
        self._outcome["not_started"] = error[-_WHY_CHARS:] or "see its stderr"
        return client_code if client_code in (126, 127) else 127 if "not found" in error else 126

    def _state(self) -> "Facts | None":
        said = self._engine.call(self._run["inspect"])
        if said is None or said.returncode:
            return None
        state: Facts = json.loads(said.stdout)
        return state

    def _on_sigterm(self, _number: int, _frame: "FrameType | None") -> None:
        self._is_asked_to_end = True
        if self._client is not None:
            self._pass_on()

    def _pass_on(self) -> None:
        """To the first process of the container, as soon as there is one; our keeper waits no longer."""
        for _ in range(_SIGNAL_TRIES):
            said = self._engine.call(self._run["terminate"])
            if (said is not None and said.returncode == 0) or self._has_ended():
                return
            time.sleep(_SIGNAL_PAUSE_S)

    def _has_ended(self) -> bool:
        return self._client is not None and self._client.poll() is not None

    def _remove(self) -> None:
        # What comes now is no business of the command's any more, and must not end us half way.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _write(self._run["outcome"], self._outcome | remove(self._run, self._engine))


def remove(run: Facts, engine: Engine) -> Facts:
    """`removed`: nothing of the container runs any more. Without the engine its processes are ended, and what
    the engine knows of it is `left`.
    """
    said = engine.call(run["remove"], within_s=_REMOVE_S)
    if said is not None and (said.returncode == 0 or "no such container" in said.stderr.lower()):
        _wait_for_children()
        return {"removed": True}
    try:
        with open(run["id_file"]) as file:
            container_id = file.read().strip()
    except FileNotFoundError:
        container_id = ""
    # Without an id it was not made, or was not started.
    return {"removed": not container_id or _end_processes(container_id), "left": True}


def _end_processes(container_id: str) -> bool:
    give_up_at = time.monotonic() + _VANISH_S
    while True:
        living = _processes_of(container_id)
        if not living or time.monotonic() > give_up_at:
            return not living
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(_LOOK_S)


def _processes_of(container_id: str) -> list[int]:
    """By their groups, which the engines name by the container's id."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cgroup") as file:
                    if container_id in file.read():
                        found.append(int(name))
            except OSError:
                continue
    return found


def _wait_for_children() -> None:
    """Podman's process for the container becomes ours: the keeper must not take it for the task's."""
    give_up_at = time.monotonic() + _CHILDREN_S
    while time.monotonic() < give_up_at:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(_LOOK_S)
        except ChildProcessError:
            return


def _become_subreaper() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _why(made: "subprocess.CompletedProcess[str] | None") -> str:
    if made is None:
        return "the container engine does not answer"
    lines = [line for line in made.stderr.splitlines() if line.strip()]
    return (lines or [f"exit code {made.returncode}"])[-1][-_WHY_CHARS:]


def _write(path: str, outcome: Facts) -> None:
    """Whole or not at all; on a full disk not at all, and the agent removes the container once more."""
    try:
        with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(outcome, file)
        os.rename(f"{path}.new", path)
    except OSError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def main(arguments: list[str]) -> int:
    with open(arguments[0]) as file:
        run: Facts = json.load(file)
    _become_subreaper()
    if arguments[1:] != ["remove"]:
        return ContainerSupervisor(run).main()
    outcome = remove(run, Engine(run))
    _unlink(run["env_file"])
    if outcome["removed"]:
        _write(run["outcome"], outcome | {"killed": True})
    return 0 if outcome["removed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
