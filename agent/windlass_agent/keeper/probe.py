"""`python -I -S -X utf8 probe.py PROFILE BWRAP UID`: whether a profile can be had on this machine.

By doing it, since kernels, containers and security modules forbid this and that: a directory of its own, a
sandbox, and `true` in it. Says why not and ends with 1, or says nothing.
"""

import os
import sys
import tempfile
from pathlib import PurePath

sys.path[0:1] = []
sys.path.append(str(PurePath(__file__).parents[2]))

from windlass_agent.keeper.confine import Confinement, hand_over, spawn_confined  # noqa: E402
from windlass_agent.keeper.record import Record  # noqa: E402
from windlass_agent.keeper.sandbox import Place, make_sandbox  # noqa: E402


def main(profile: str, bwrap: str, uid: int) -> str:
    """What is in the way; "" = nothing."""
    with tempfile.TemporaryDirectory(prefix="windlass-probe-") as folder:
        work, temporary = f"{folder}/work", f"{folder}/tmp"
        for own in (work, temporary):
            os.mkdir(own)
            hand_over(own, uid)
        place = Place({"profile": profile, "binds": []}, work=work, temporary=temporary, state=folder)

        def become() -> Record:
            try:
                os.chdir(work)
                os.execve("/bin/true", ["true"], {})
            except OSError as error:
                return {"program": f"/bin/true: {error.strerror}"}

        try:
            sandbox = make_sandbox(bwrap, place)
        except OSError as error:
            return str(error)
        confinement = Confinement(place, sandbox, uid=uid, open_files=0, processes=0)
        pid, failed = spawn_confined(confinement, become, b"500")
        status = 0 if failed else os.waitpid(pid, 0)[1]
        sandbox.close()
    return str(failed["program"]) if failed else f"a command ended with status {status}" if status else ""


if __name__ == "__main__":
    problem = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    if problem:
        sys.exit(problem)
