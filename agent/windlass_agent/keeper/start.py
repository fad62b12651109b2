"""Makes a process a keeper: lock, signals, socket; then the loop."""

import ctypes
import fcntl
import gc
import json
import os
import signal
import socket
import sys

from windlass_agent.keeper.loop import Keeper
from windlass_agent.keeper.record import Record, crash_at

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Ends with status 3 when the slot has a living keeper already."""
    config: Record = json.loads(sys.argv[1])
    os.umask(0o022)
    os.chdir(config["slot"])
    lock = os.open("keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(3)
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        # Not SIG_IGN, which commands would inherit; a shell that starts the agent by `&` sets that too.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))  # The agent may have more.
    crash_at(config["crash_at"])
    keeper = Keeper(config, _make_nonce())
    listener = _listen()
    gc.freeze()  # What is there now stays: it need not be looked through again and again.
    keeper.admit(_take_stdin(), is_trusted=True)
    keeper.serve(listener)
    listener.close()
    try:
        os.unlink(f"{config['slot']}/keeper.sock")
    except FileNotFoundError:
        pass  # The slot was removed, and the keeper ended for that.


def _make_nonce() -> str:
    """Who can read the file may speak to the keeper."""
    nonce = os.urandom(16).hex()
    with open(os.open("keeper.nonce.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(nonce)
    os.rename("keeper.nonce.new", "keeper.nonce")
    return nonce


def _take_stdin() -> socket.socket:
    """The agent that starts a keeper is connected from the first moment, through descriptor 0."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return sock


def _listen() -> socket.socket:
    """By a relative name: a socket's path may have 107 bytes only."""
    if os.path.lexists("keeper.sock"):
        os.unlink("keeper.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    listener.bind("keeper.sock")
    os.umask(before)
    listener.listen(4)
    return listener
