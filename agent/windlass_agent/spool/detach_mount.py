"""Takes one mount off, lazily: who still has something open there keeps it.

Also a program of its own, started with `-I -S`: for a mount whose server may have to be told.
"""

import ctypes
import os
import sys

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def detach(point: str) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)


if __name__ == "__main__":
    detach(sys.argv[1])
