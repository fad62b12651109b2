"""Another wall clock for one process: a small library, loaded before the C library, that adds an offset.

The offset is read from a file at each look at the clock, so a test can let the clock jump. The monotonic and
boot clocks stay as they are, as on a machine whose time is set.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset_s(void) {
    char text[32] = {0};
    const char *path = getenv("TEST_CLOCK_OFFSET_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    return got > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *to) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (to) *to = exact.tv_sec;
    return exact.tv_sec;
}
"""


def lacking() -> str:
    """Why it cannot be built here; "" = it can."""
    return "" if shutil.which("cc") else "no C compiler (cc), with which the injected clock is built"


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """Give `variables` to a program as `extra`."""

    library: Path
    offset_file: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "TEST_CLOCK_OFFSET_FILE": str(self.offset_file)}

    def set(self, offset_s: int) -> None:
        """From now on the clock is that far ahead of the true time; negative = behind."""
        beside = self.offset_file.with_suffix(".next")
        beside.write_text(str(offset_s))
        os.replace(beside, self.offset_file)


def build_wall_clock(directory: Path) -> WallClock:
    """Ask `lacking` first. The clock is right until it is set."""
    source, library = directory / "wall_clock.c", directory / "wall_clock.so"
    source.write_text(_SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    clock = WallClock(library=library, offset_file=directory / "clock_offset")
    clock.set(0)
    return clock
