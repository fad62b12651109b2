"""A library that stands where NVIDIA's driver puts its own: machines with any GPUs, without any.

It is NVML as its callers see it (`libnvidia-ml.so.1`), so that everything above it is the real thing. What
the machine has stands in the variable FAKE_NVML, one character for each GPU: `w` a whole one, `l` one that
has fallen off the bus, a digit one that is divided into so many parts; `d` alone: the driver is not loaded,
`m`: the driver is of another version than its library.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
enum { OK = 0, NOT_FOUND = 6, NOT_LOADED = 9, LOST = 15, MISMATCH = 18 };
static const char *machine(void) { const char *said = getenv("FAKE_NVML"); return said ? said : ""; }
static int kind(void *device) { return machine()[(long)device % 100 - 1]; }
int nvmlInitWithFlags(unsigned flags) {
  return machine()[0] == 'd' ? NOT_LOADED : machine()[0] == 'm' ? MISMATCH : OK;
}
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == MISMATCH ? "Driver/library version mismatch" : "?"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = strlen(machine()); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (machine()[index] == 'l') return LOST;
  *device = (void *)(long)(index + 1);
  return OK;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) {
  *now = *next = kind(device) != 'w';
  return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned place, void **part) {
  if (place >= (unsigned)(kind(device) - '0')) return NOT_FOUND;
  *part = (void *)((long)device + 100 * (place + 1));
  return OK;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
  snprintf(uuid, size, "MIG-%ld-%ld", (long)device % 100 - 1, (long)device / 100 - 1);
  return OK;
}
"""


def build(directory: Path) -> str:
    """Where the library is, for LD_LIBRARY_PATH; it is found when a program is started with that."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: NVML cannot be stood in for")
    source = directory / "nvml.c"
    source.write_text(_SOURCE)
    library = directory / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    return str(directory)
