"""Touches mounts for the agent: a program of its own, because what it touches may hang for ever.

Reads one order as JSON from its standard input, carries it out, writes one answer as JSON. It may be killed
at any moment: whatever it has mounted by then stands in the kernel's list. Standard library only, started
by exec with `-I -S`, so that it is there within milliseconds.

Places below the attempt's directory are walked to by descriptors, without following a link: a package may
have put some there. What is mounted, and where, is named by /proc/self/fd, so no path of ours or of the
user's becomes part of an option.
"""

import ctypes
import json
import os
import stat
import sys
from typing import Any

Order = dict[str, Any]  # JSON, and its only writer is `order.py`

_NOSUID, _NODEV, _RDONLY, _REMOUNT, _BIND = 2, 4, 1, 32, 4096
_REFUSED = 2
"""Exit code when the place itself is no directory: a link, or a file of the package's."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PlaceRefused(Exception):
    """It is the attempt's own doing."""


def main() -> int:
    order = json.load(sys.stdin)
    try:
        answer = _ORDERS[order["do"]](order)
    except PlaceRefused as problem:
        json.dump({"error": str(problem)}, sys.stdout)
        return _REFUSED
    except OSError as problem:
        json.dump({"error": f"{problem.strerror or problem}"}, sys.stdout)
        return 1
    json.dump(answer, sys.stdout)
    return 0


def probe(order: Order) -> Order:
    """Asks the file system's daemon, which no cache answers for it."""
    for point in order["points"]:
        os.statvfs(point)
    return {}


def expose(order: Order) -> Order:
    """Proves the mount below and puts what the command is to see on its place."""
    for proof in order["proofs"]:
        about = os.stat(proof["path"])
        device = f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
        if proof["device"] and device != proof["device"]:
            raise OSError(f"device {device} is mounted, not {proof['device']}")
        for name in proof["names"]:
            os.lstat(os.fsencode(proof["path"]) + b"/" + os.fsencode(name))
    for one in order["overlays"]:
        _overlay(one)
    for one in order["binds"]:
        _bind(one)
    return {}


def _overlay(one: Order) -> None:
    target = place(one["root"], one["target"])
    lower = os.open(one["lower"], os.O_PATH | os.O_DIRECTORY)
    upper = os.open(one["upper"], _DIRECTORY)
    work = os.open(one["work"], _DIRECTORY)
    options = f"upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{work},volatile"
    if one["names"]:
        # The names' layer has files without content, each of which says where in the lower layer its own is.
        names = os.open(one["names"], _DIRECTORY)
        options += f",lowerdir=/proc/self/fd/{names}::/proc/self/fd/{lower},metacopy=on,redirect_dir=on"
    else:
        options += f",lowerdir=/proc/self/fd/{lower}"
    _mount("overlay", target, "overlay", _NOSUID | _NODEV, options)


def _bind(one: Order) -> None:
    target = place(one["root"], one["target"])
    source = os.open(one["source"], os.O_PATH | os.O_DIRECTORY)
    _mount(f"/proc/self/fd/{source}", target, "", _BIND, "")
    flags = _NOSUID | _NODEV | (0 if one["writable"] else _RDONLY)
    # The descriptor names what was there before; the walk ends on the new mount.
    _mount("", place(one["root"], one["target"]), "", _REMOUNT | _BIND | flags, "")


def place(root: str, target: str) -> int:
    """A descriptor of the directory; what is missing of the way is made."""
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in target.split("/"):
        try:
            if not stat.S_ISDIR(os.lstat(part, dir_fd=here).st_mode):
                raise PlaceRefused(
                    f"its place {target} is no directory, but something that the package put there"
                )
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=here)
        deeper = os.open(part, _DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
    return here


def _mount(source: str, target: int, kind: str, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    where = f"/proc/self/fd/{target}"
    if libc.mount(*map(os.fsencode, (source, where, kind)), flags, os.fsencode(options)):
        code = ctypes.get_errno()
        raise OSError(code, f"{kind or 'bind'}: {os.strerror(code)}")


_ORDERS = {"probe": probe, "expose": expose}

if __name__ == "__main__":
    sys.exit(main())
