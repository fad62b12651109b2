"""The filter of system calls, as a BPF program.

A deny list: what commands of a batch system have no use for and what has led from a command to its node.
Everything else works, so that nobody has to know what a program calls.
"""

import errno
import struct

_CALLS: dict[str, tuple[int, int]] = {
    # file systems
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    # namespaces; see also clone
    "unshare": (272, 97),
    "setns": (308, 268),
    # the kernel itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "syslog": (103, 116),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    # keys, clocks, names
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
}
"""Refused to every isolated command; numbers on x86_64 and on aarch64 (-1 = it is not there)."""
_STRICT_CALLS: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
}
"""In `standard` a command may debug its own processes: those of others belong to other users."""
_NOT_THERE: dict[str, tuple[int, int]] = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone3": (435, 435),
}
"""Answered as by a kernel that lacks them, so that programs use what came before."""
_ARGUMENTS: dict[str, tuple[tuple[int, int], int, int]] = {
    "clone": ((56, 220), 0, 0x7E020000),
    "ioctl": ((16, 29), 1, -0x5412),
}
"""Refused by an argument: which one, and the bits of it (new namespaces), or minus its value (TIOCSTI)."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16


def knows(machine: str) -> bool:
    return machine in _MACHINES


def filter_program(machine: str, profile: str) -> bytes:
    """Instructions of 8 bytes each, as prctl(2) takes them. Raises OSError for a machine not known here."""
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}")
    column, audit_arch = _MACHINES[machine]
    refuse, lacks = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    # Calls of another ABI have other numbers: they are not looked at but refused.
    code = [_op(_LOAD, _MACHINE_AT), _op(_EQUAL, audit_arch, 1, 0), _op(_RETURN, lacks)]
    code += [_op(_LOAD, _NUMBER_AT), _op(_AT_LEAST, _X32, 0, 1), _op(_RETURN, lacks)]
    calls = _CALLS | (_STRICT_CALLS if profile == "strict" else {})
    for numbers, answer in ((calls, refuse), (_NOT_THERE, lacks)):
        for number in sorted(pair[column] for pair in numbers.values() if pair[column] >= 0):
            code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, answer)]
    for pair, argument, test in _ARGUMENTS.values():
        kind, value = (_ANY_BIT, test) if test > 0 else (_EQUAL, -test)
        code += [
            _op(_EQUAL, pair[column], 0, 4),
            _op(_LOAD, _ARGUMENTS_AT + 8 * argument),  # its lower half: both machines are little-endian
            _op(kind, value, 0, 1),
            _op(_RETURN, refuse),
            _op(_RETURN, _ALLOW),
        ]
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _op(what: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", what, if_true, if_false, value)
