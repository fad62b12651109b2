"""Shows Windlass at work, with nothing but its own command line: what `make demo` runs.

Starts a coordinator, an object store and three agents on this machine, runs both examples with real data,
checks their results, says where everything lies, and ends what it has started. The data is kept, so that
one can look around later.

python examples/demo.py [--data DIR] [LOG]        LOG: any log file, instead of the generated one
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
LOG_COUNT = EXAMPLES / "log-count"
WORD_COUNT = EXAMPLES / "word-count"
EXPECTED = {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}
CLI = [sys.executable, "-m", "windlass.cli.main"]


class Demo:
    """One laptop-mode system, and a place for files on their way."""

    def __init__(self, *, data: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._bucket = data / "store" / "windlass"
        self._env = {**os.environ, "WINDLASS_DATA": str(data)}

    def windlass(self, *arguments: str | Path) -> None:
        """Shows the command and runs it; the demo ends when it fails."""
        say(f"$ windlass {' '.join(map(str, arguments))}")
        subprocess.run([*CLI, *arguments], env=self._env, check=True)

    def text_of(self, url: str) -> str:
        done = subprocess.run(
            [*CLI, "store", "cat", url], env=self._env, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def log_count(self, log: Path | None) -> None:
        store = "oss://windlass/log-count/"
        say("\n== log-count: split a log, count its levels three at a time, merge")
        source = log or self._made(LOG_COUNT / "generate.py", "log-count-data.txt")
        self.windlass("store", "cp", source, f"{store}log-count-data.txt")
        self.windlass("submit", "-f", LOG_COUNT / "job.yaml", "--follow")
        merged = json.loads(self.text_of(f"{store}merge_result.txt"))
        say(f"\nmerged counts  {json.dumps(merged)}")
        self._tell_where("log-count")
        if log is None and merged != EXPECTED:
            sys.exit(f"the counts are wrong; right is {json.dumps(EXPECTED)}")

    def word_count(self) -> None:
        store = "oss://windlass/word-count/"
        say("\n== word-count: the same over the sources of Python's standard library, checked afterwards")
        sources = self._made(WORD_COUNT / "prepare.py", "sources.tar")
        self.windlass("store", "cp", sources, f"{store}sources.tar")
        self.windlass("submit", "-f", WORD_COUNT / "job.yaml", "--follow")
        result = self._scratch / "words.json"
        self.windlass("store", "cp", f"{store}words.json", result)
        subprocess.run([sys.executable, WORD_COUNT / "check.py", result], check=True)
        self._tell_where("word-count")

    def _tell_where(self, example: str) -> None:
        for what, place in (("outputs", example), ("logs", f"logs/{example}")):
            say(f"{what:<14} oss://windlass/{place}/   as files: {self._bucket / place}")

    def _made(self, program: Path, name: str) -> Path:
        path = self._scratch / name
        say(f"$ python {program.relative_to(EXAMPLES.parent)} {name}")
        subprocess.run([sys.executable, program, path], check=True)
        return path


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("log", nargs="?", type=Path, help="any log file, instead of the generated one")
    arguments.add_argument("--data", type=Path, default=EXAMPLES.parent / "build" / "demo")
    chosen = arguments.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="windlass-demo-") as scratch:
        demo = Demo(data=chosen.data.absolute(), scratch=Path(scratch))
        try:
            demo.windlass("up", "--detach", "--agents", "3", "--slots", "1")
            demo.log_count(chosen.log)
            demo.word_count()
            demo.windlass("jobs")
        except subprocess.CalledProcessError as failed:
            sys.exit(f"the demo ends here: this command failed with exit code {failed.returncode}")
        finally:
            demo.windlass("down")
    say(f"\nThat took {time.monotonic() - began:.0f} s. To look around: windlass up --data {chosen.data}")


if __name__ == "__main__":
    main()
