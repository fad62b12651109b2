"""A replay as one file: runs on a machine that has sh, tar and python3, and nothing of Windlass."""

import tarfile
from pathlib import Path

from windlass.client import Client
from windlass.replay.past import PastAttempt
from windlass.replay.plan import ReplayPlan
from windlass_proto.errors import NotFound, Unavailable
from windlass_proto.model.states import LogStream

_RUN = """\
#!/bin/sh
# Runs the attempt that this folder holds; see README.md.
cd "$(dirname "$0")" || exit 127
command -v python3 >/dev/null || { echo "replay: it needs python3" >&2; exit 127; }
exec python3 run.py "$@"
"""
_README = """\
# {what}

It ended so: {outcome}. To run it again, with the same command, environment, files and limits:

    sh run.sh            ends with the command's exit code
    sh run.sh --shell    a shell in its place

The command is

    {command}

| | |
|---|---|
| `work/` | its working directory, with its package; to begin anew, unpack the bundle anew |
| `tmp/` | its TMPDIR |
| `mounts/` | what it finds under absolute paths (with bubblewrap: the program `bwrap`) |
| `recorded/` | what it wrote to standard output and standard error back then |
| `replay.json` | everything that is known of it, with its environment: whoever has the bundle can read that |

{notes}"""


async def fetch_recorded(client: Client, past: PastAttempt, folder: Path) -> None:
    """The attempt's output, as far as the coordinator has it."""
    recorded = folder / "recorded"
    recorded.mkdir()
    for stream in LogStream:
        chunks = client.read_log(
            past.job_id, past.spec.name, past.index, stream=stream, attempt=past.status.attempt
        )
        with (recorded / str(stream)).open("wb") as file:
            try:
                async for chunk in chunks:
                    file.write(chunk.data)
            except NotFound:  # it wrote nothing, or it was forgotten
                continue


def write_bundle(folder: Path, plan: ReplayPlan, file: Path) -> None:
    """Packs a prepared folder. Raises Unavailable when the file cannot be written."""
    notes = "".join(f"- {note}\n" for note in plan.notes)
    text = _README.format(
        what=plan.what, outcome=plan.outcome, command=" ".join(plan.argv), notes=f"Unlike there:\n\n{notes}"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "run.sh").write_text(_RUN, encoding="utf-8")
    (folder / "run.sh").chmod(0o755)
    name = file.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        file.touch(0o600)
        with tarfile.open(file, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            archive.add(folder, name, filter=_of_nobody)
    except OSError as error:
        raise Unavailable(f"cannot write the bundle {file}: {error.strerror}") from error


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
