"""`python -I -S -X utf8 <this folder> CONFIG`; CONFIG is one JSON object, see `loop.Keeper`."""

import sys
from pathlib import PurePath

# Last, so that nothing installed beside the agent hides a module of the standard library.
sys.path[0:1] = []
sys.path.append(str(PurePath(__file__).parents[2]))

from windlass_agent.keeper.start import main  # noqa: E402  (the path must be set first)

if __name__ == "__main__":
    main()
