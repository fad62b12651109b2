"""The program: loads what it needs, gives up what it does not, unpacks, and says how it went."""

import encodings.cp437
import encodings.latin_1
import errno
import os
import sys
from types import ModuleType

from windlass_proto.unpack.archives import unpack
from windlass_proto.unpack.confinement import confine
from windlass_proto.unpack.limits import Limits, limits_from_json
from windlass_proto.unpack.target import Refused, Target

REFUSED, FAILED = 2, 3
_LOADED_BEFORE: tuple[ModuleType, ...] = (encodings.cp437, encodings.latin_1)
"""Of names in archives; once confined, no module can be read any more."""
_ARCHIVES_FAULT = frozenset(
    (
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
    )
)


def main(limits_text: str) -> int:
    os.umask(0o022)
    limits = limits_from_json(limits_text)
    zstd = _zstandard(limits.libraries)
    archive = os.fdopen(0, "rb", closefd=False)
    size_bytes = os.fstat(0).st_size
    confine(limits)
    allowed_bytes = limits.bytes_from(size_bytes)
    target = Target(limit_bytes=allowed_bytes, limit_entries=limits.entries)
    try:
        unpack(archive, target, limit_bytes=allowed_bytes, limit_entries=limits.entries, zstd=zstd)
    except Refused as problem:
        print(problem)
        return REFUSED
    except (MemoryError, RecursionError):
        print("the archive needs more memory to unpack than it may have")
        return REFUSED
    except OSError as problem:
        return _judge(problem, limits)
    return 0


def _judge(problem: OSError, limits: Limits) -> int:
    if problem.errno == errno.EFBIG:
        print(f"the archive unpacks to more than {limits.unpacked_bytes} bytes")
    elif problem.errno == errno.ENAMETOOLONG:
        print(f"the archive has a name that is too long: {str(problem.filename)[:100]!r}")
    elif problem.errno in _ARCHIVES_FAULT:
        print(f"the archive has a file and a directory of one name: {str(problem.filename)[:100]!r}")
    else:
        print(f"could not write: {problem.strerror}")
        return FAILED
    return REFUSED


def _zstandard(libraries: str) -> "ModuleType | None":
    if not libraries:
        return None
    sys.path.append(libraries)
    try:
        import zstandard
    except ImportError:
        return None
    finally:
        sys.path.remove(libraries)
    return zstandard
