"""`python -I -S -X utf8 <this folder> LIMITS`; LIMITS is one JSON object, see `limits.Limits`."""

import sys
from pathlib import PurePath

# Last, so that nothing installed beside us hides a module of the standard library.
sys.path[0:1] = []
sys.path.append(str(PurePath(__file__).parents[2]))

from windlass_proto.unpack.program import main  # noqa: E402  (the path must be set first)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
