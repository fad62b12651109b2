"""Which GPUs commands of this node may be given: as its settings say, or else as NVML finds.

Named as CUDA_VISIBLE_DEVICES takes them: a whole GPU by NVML's index, which is the order on the PCI bus; a
part of one (MIG) by its UUID, as it has no index of its own. NVIDIA's binding is imported when it is needed,
and a machine without it, or without a driver, simply has no GPUs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpus:
    names: tuple[str, ...] = ()
    is_said: bool = False
    """By the settings, which may say that there are none for commands."""
    problem: str = ""
    """Why NVML could not be asked although there is a driver."""

    @property
    def are_given_out(self) -> bool:
        """Whether a command sees those only that it was given; else it sees whatever there is."""
        return self.is_said or bool(self.names)


def gpus_of_node(said: tuple[str, ...] | None) -> NodeGpus:
    """`said` by the settings; None = find out."""
    return NodeGpus(names=said, is_said=True) if said is not None else find_gpus()


def find_gpus() -> NodeGpus:
    try:
        import pynvml
    except ImportError:
        return NodeGpus()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        is_absent = problem.value in (
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        )
        return NodeGpus(problem="" if is_absent else str(problem))
    try:
        return NodeGpus(names=tuple(_names(pynvml)))
    except pynvml.NVMLError as problem:
        return NodeGpus(problem=str(problem))
    finally:
        pynvml.nvmlShutdown()


def _names(nvml: ModuleType) -> Iterator[str]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            continue  # it has fallen off the bus, or is not ours to use
        if _is_divided(nvml, device):
            yield from _parts(nvml, device)
        else:
            yield str(index)


def _is_divided(nvml: ModuleType, device: Any) -> bool:  # Any: a handle of the untyped binding, as below
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:
        return False  # most models cannot be divided
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _parts(nvml: ModuleType, device: Any) -> Iterator[str]:
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place)
        except nvml.NVMLError:
            continue  # no part lies there
        yield str(nvml.nvmlDeviceGetUUID(part))
