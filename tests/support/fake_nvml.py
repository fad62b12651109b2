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
  long number = (long)device % 100 - 1, part = (long)device / 100 - 1;
  if (part < 0) snprintf(uuid, size, "GPU-00000000-0000-0000-0000-%012lx", number);
  else snprintf(uuid, size, "MIG-%ld-%ld", number, part);
  return OK;
}
"""

_CUDA_SOURCE = r"""
#include <stdlib.h>
#include <string.h>
enum { OK = 0, NO_DEVICE = 100 };
static int numbers[16], count;
int cuInit(unsigned flags) {
  const char *said = getenv("FAKE_CUDA_SEES") ? getenv("FAKE_CUDA_SEES") : getenv("CUDA_VISIBLE_DEVICES");
  for (; said && *said && count < 16; said = strchr(said, ',') ? strchr(said, ',') + 1 : "")
    numbers[count++] = atoi(said);
  return count ? OK : NO_DEVICE;
}
int cuDeviceGetCount(int *how_many) { *how_many = count; return OK; }
int cuDeviceGet(int *device, int place) { *device = numbers[place]; return OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 0, 15); uuid[15] = device; return OK; }
"""


def build(directory: Path) -> str:
    """Where the library is, for LD_LIBRARY_PATH; it is found when a program is started with that."""
    return _compile(directory, "libnvidia-ml.so.1", _SOURCE)


def build_cuda(directory: Path) -> str:
    """The few calls of CUDA's driver that tell which GPUs a process sees: those of CUDA_VISIBLE_DEVICES, or,
    as if it did not heed that, those of FAKE_CUDA_SEES."""
    return _compile(directory, "libcuda.so.1", _CUDA_SOURCE)


def _compile(directory: Path, name: str, text: str) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: the driver's libraries cannot be stood in for")
    source = directory / f"{name}.c"
    source.write_text(text)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", directory / name, source], check=True, capture_output=True
    )
    return str(directory)
