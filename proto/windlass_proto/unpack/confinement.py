"""Takes from this process what unpacking does not need: rights, network, other files, memory, time.

The archive is open and the directory is the current one before this begins. What a kernel does not have is
left out: each of these stands behind the rules for members, none instead of them.
"""

import ctypes
import os
import resource
import signal
import struct

from windlass_proto.unpack.limits import Limits

_ADDRESS_SPACE = 1 << 30
_CPU_SECONDS = 3600
_OPEN_FILES = 64
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_ONLY, _PATH_BENEATH = 1, 1
_ALL_OF_ABI = {2: 1 << 14, 3: 1 << 15, 4: 1 << 15}
_NEWEST_FILES = 1 << 16
"""One above the highest right about files that each Landlock ABI knows; the first ABI lacks links between
directories, and is not used."""
_ALLOWED = sum(1 << bit for bit in (1, 2, 3, 4, 5, 7, 8, 12, 13))
"""Write, read, list and remove files and directories, make them and links; no device, fifo or socket."""
_BIND_AND_CONNECT = 0b11
_SOCKETS_AND_SIGNALS = 0b11


def confine(limits: Limits) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _leave_network(libc)
    _give_up_rights(limits)
    # Changed credentials have cleared both.
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if limits.parent and os.getppid() != limits.parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it died before it could be asked for
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _see_only_this_directory(libc)
    _limit_ourselves(limits)


def _leave_network(libc: ctypes.CDLL) -> None:
    if os.geteuid() == 0:
        libc.unshare(_CLONE_NEWNET)
    else:
        # In a user namespace of our own; files keep the owner that we have outside.
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _give_up_rights(limits: Limits) -> None:
    if limits.user is None or limits.group is None:
        return
    os.setgroups([])
    os.setresgid(limits.group, limits.group, limits.group)
    os.setresuid(limits.user, limits.user, limits.user)


def _see_only_this_directory(libc: ctypes.CDLL) -> None:
    """By Landlock, where the kernel has it."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_ONLY)
    if version < 2:
        return
    rights = struct.pack("=Q", _ALL_OF_ABI.get(version, _NEWEST_FILES) - 1)
    if version >= 4:
        rights += struct.pack("=Q", _BIND_AND_CONNECT)
    if version >= 6:
        rights += struct.pack("=Q", _SOCKETS_AND_SIGNALS)
    ruleset = libc.syscall(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if ruleset < 0:
        return
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", _ALLOWED, directory), 0)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(directory)
    os.close(ruleset)


def _limit_ourselves(limits: Limits) -> None:
    for what, soft, hard in (
        (resource.RLIMIT_AS, _ADDRESS_SPACE, _ADDRESS_SPACE),
        # The soft one tells by its signal that it was the archive, not somebody's kill.
        (resource.RLIMIT_CPU, _CPU_SECONDS, _CPU_SECONDS + 10),
        (resource.RLIMIT_FSIZE, limits.unpacked_bytes, limits.unpacked_bytes),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        _, ceiling = resource.getrlimit(what)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(what, (soft, hard))
