"""Runs the attempt that the folder of this file, or the folder given, holds; as a node would have run it.

    python3 run.py [--shell] [FOLDER]

Standard library only, Python 3.8 and newer: it lies in every bundle as run.py, and `windlass replay` starts
it as a program of its own. Ends with the command's exit code; 128 and the signal's number when a signal ended
it, 124 when it ran out of its time.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Sequence  # noqa: UP035  (older Pythons take no other)

PLAN = "replay.json"
WORK_DIR_INSIDE = "/batchcompute/workdir"
_KILL_GRACE_S = 10.0
_OUT_OF_TIME, _NOT_STARTED = 124, 127
_JOIN = 'for group in $0; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
_NO_LIMIT = 0


class CannotRun(Exception):
    """This machine lacks what it needs; the message says what would do."""


def main(arguments: list[str]) -> int:
    given = [argument for argument in arguments if argument != "--shell"]
    folder = os.path.abspath(given[0] if given else os.path.dirname(__file__))
    with open(os.path.join(folder, PLAN), encoding="utf-8") as file:
        plan = json.load(file)
    plan["is_shell"] = "--shell" in arguments
    if plan["is_shell"]:
        plan["argv"] = ["/bin/sh", "-i"]
    try:
        return (_in_container if plan["has_container"] else _on_machine)(plan, folder)
    except (CannotRun, OSError) as problem:
        _say(f"cannot run it here: {problem}")
        return _NOT_STARTED


def _on_machine(plan: dict[str, Any], folder: str) -> int:
    argv = _with_binds(plan, folder)
    environment = dict(plan["env"])
    environment.update({name: os.path.join(folder, below) for name, below in plan["folders"].items()})
    me = pwd.getpwuid(os.getuid())
    mine = {"HOME": me.pw_dir, "USER": me.pw_name, "LOGNAME": me.pw_name}
    environment.update({name: mine[name] for name in plan["own"]})
    _limit_open_files(plan["open_files"])
    groups = _make_groups(plan)
    if groups:
        argv = ["/bin/sh", "-c", _JOIN, " ".join(groups), *argv]
    try:
        return _run(plan, argv, os.path.join(folder, "work"), environment, _end_group)
    finally:
        for group in groups:
            _remove_group(group)


def _in_container(plan: dict[str, Any], folder: str) -> int:
    engine = _engine()
    image = _image(engine, plan, folder)
    name = f"windlass-replay-{os.getpid()}"
    variables = os.path.join(folder, "container.env")
    with open(
        os.open(variables, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write("".join(f"{key}={value}\n" for key, value in plan["env"].items()))
    argv = [
        *(engine, "run", "--rm", "--name", name, "--user", "0:0", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--env-file", variables),
        *("--workdir", WORK_DIR_INSIDE, "--entrypoint", ""),
        *("--network", plan["network"], "--log-driver", "none"),
        *_mount(os.path.join(folder, "work"), WORK_DIR_INSIDE),
        *_mount(os.path.join(folder, "tmp"), "/tmp"),
    ]
    for place in _bound(plan):
        argv += _mount(os.path.join(folder, place["folder"]), place["target"])
    if plan["cpu"]:
        argv += ["--cpus", f"{plan['cpu']:g}"]
    if plan["memory_bytes"]:
        argv += ["--memory", str(plan["memory_bytes"]), "--memory-swap", str(plan["memory_bytes"])]
    if plan["pids"]:
        argv += ["--pids-limit", str(plan["pids"])]
    if plan["open_files"]:
        argv += ["--ulimit", f"nofile={plan['open_files']}:{plan['open_files']}"]
    argv += [*(["--interactive", "--tty"] if plan["is_shell"] else []), image, *plan["argv"]]

    def end(_process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        subprocess.run(
            [engine, "kill", "--signal", how.name[3:], name], stdout=subprocess.DEVNULL, check=False
        )

    try:
        return _run(plan, argv, folder, dict(os.environ), end)
    finally:
        os.unlink(variables)


def _run(
    plan: dict[str, Any],
    argv: Sequence[str],
    directory: str,
    environment: dict[str, str],
    end: Callable[[subprocess.Popen[bytes], signal.Signals], None],
) -> int:
    """`end` sends a signal to all of it."""
    if plan["is_shell"]:
        _say(f"a shell in {directory}; end it with `exit`")
        return _code(subprocess.run(argv, cwd=directory, env=environment, check=False).returncode)
    sys.stdout.flush()
    try:
        process = subprocess.Popen(
            argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except FileNotFoundError:
        raise CannotRun(f"there is no program {argv[0]}") from None
    began = time.monotonic()
    try:
        return _code(process.wait(plan["timeout_s"]))
    except subprocess.TimeoutExpired:
        _say(f"its time is over ({time.monotonic() - began:.1f} s): ending it")
        _end(process, end)
        return _OUT_OF_TIME
    except KeyboardInterrupt:
        _end(process, end)
        return _code(-signal.SIGINT)


def _end(
    process: subprocess.Popen[bytes], end: Callable[[subprocess.Popen[bytes], signal.Signals], None]
) -> None:
    end(process, signal.SIGTERM)
    try:
        process.wait(_KILL_GRACE_S)
    except subprocess.TimeoutExpired:
        end(process, signal.SIGKILL)
        process.wait()


def _end_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        pass


def _code(returned: int) -> int:
    return 128 - returned if returned < 0 else returned


def _bound(plan: dict[str, Any]) -> list[dict[str, str]]:
    """The folders that appear under absolute paths, outer ones first."""
    bound = {place["target"]: place for place in [*plan["inputs"], *plan["outputs"]] if place["target"]}
    return [bound[target] for target in sorted(bound, key=lambda target: target.count("/"))]


def _with_binds(plan: dict[str, Any], folder: str) -> list[str]:
    """The command in a view of this machine that has the task's absolute paths."""
    bound, argv = _bound(plan), list(plan["argv"])
    if not bound:
        return argv
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        paths = ", ".join(place["target"] for place in bound)
        raise CannotRun(f"the absolute paths {paths} need bubblewrap (the program bwrap)")
    view = [bwrap, "--tmpfs", "/"]
    if os.geteuid() == 0:
        view += ["--cap-add", "ALL"]
    for name in sorted(os.listdir("/")):
        path = f"/{name}"
        view += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--dev-bind", path, path]
    for place in bound:
        view += ["--bind", os.path.join(folder, place["folder"]), place["target"]]
    return [*view, "--chdir", os.path.join(folder, "work"), "--", *argv]


def _mount(source: str, target: str) -> list[str]:
    if "," in source + target:
        raise CannotRun(f"{source} and {target} must not hold a comma")
    return ["--mount", f"type=bind,source={source},target={target}"]


def _engine() -> str:
    """One that answers: docker's program may be here without its daemon."""
    for name in ("docker", "podman"):
        program = shutil.which(name)
        if program is None:
            continue
        asked = [
            program,
            "version",
            "--format",
            "{{.Server.Version}}" if name == "docker" else "{{.Version}}",
        ]
        answered = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if answered.returncode == 0 and answered.stdout.strip():
            return program
    raise CannotRun("it needs docker or podman, and neither answers")


def _image(engine: str, plan: dict[str, Any], folder: str) -> str:
    """What the command is to run in; brought here first when the task names an archive."""
    archive = os.path.join(folder, "image.tar")
    if not os.path.exists(archive):
        return str(plan["image"])
    _say("loading the image")
    loaded = subprocess.run(
        [engine, "load", "--input", archive], stdout=subprocess.PIPE, text=True, check=False
    )
    if loaded.returncode == 0:
        return plan["image"] or str(loaded.stdout).strip().rsplit(" ", 1)[-1]
    reference: str = plan["image"] or "windlass-replay:latest"
    imported = subprocess.run([engine, "import", archive, reference], stdout=subprocess.DEVNULL, check=False)
    if imported.returncode:
        raise CannotRun(f"{engine} can read no image from {archive}")
    return reference


def _limit_open_files(most: int) -> None:
    if not most:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and most > hard and os.geteuid() != 0:
        _say(f"open files are limited to {hard} here, not to {most}")
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make_groups(plan: dict[str, Any]) -> list[str]:
    """cgroups with the attempt's limits, where this user can make them."""
    wanted = {"memory": plan["memory_bytes"], "pids": plan["pids"]}
    groups: list[str] = []
    for what, most in wanted.items():
        if most == _NO_LIMIT:
            continue
        made = _make_group(what, most, groups)
        if made is None:
            _say(f"{what} is not limited to {most} here: that needs root and cgroups")
        elif made not in groups:
            groups.append(made)
    return groups


def _make_group(what: str, most: int, groups: Sequence[str]) -> str | None:
    name = f"windlass-replay-{os.getpid()}"
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        group, files = f"/sys/fs/cgroup/{name}", {"memory": ["memory.max"], "pids": ["pids.max"]}
        switch = "/sys/fs/cgroup/cgroup.subtree_control"
    else:
        group, switch = f"/sys/fs/cgroup/{what}/{name}", None
        files = {"memory": ["memory.limit_in_bytes"], "pids": ["pids.max"]}
    try:
        if switch is not None:
            with open(switch, "w", encoding="ascii") as file:
                file.write(f"+{what}")
        if group not in groups:
            os.mkdir(group)
        for limit in files[what]:
            with open(os.path.join(group, limit), "w", encoding="ascii") as file:
                file.write(str(most))
    except OSError:
        return None
    return group


def _remove_group(group: str) -> None:
    """It is busy until the last of its processes is gone."""
    for _ in range(100):
        try:
            os.rmdir(group)
        except OSError:
            time.sleep(0.05)
        else:
            return


def _say(text: str) -> None:
    print(f"replay: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
