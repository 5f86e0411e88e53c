"""What the machine has that decides how a card is trained on it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os

import torch


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A machine, as far as training goes."""

    cores: int
    memory_bytes: int
    """RAM that is free now; 0 where the system does not tell."""
    gpu: str = ""
    """Name of the first NVIDIA GPU; empty without one."""
    gpu_free_bytes: int = 0
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability, such as (9, 0)."""
    bf16: bool = False
    """Whether the GPU computes in bfloat16."""
    bitsandbytes: bool = False
    """Whether the package for 4-bit bases is installed."""
    unsloth: bool = False
    peft: bool = False

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return bool(self.gpu)

    def __str__(self) -> str:
        """For people."""
        packages = [
            name for name in ("bitsandbytes", "peft", "unsloth") if getattr(self, name) is True
        ]
        ram = f"{self.cores} cores, {self.memory_bytes / 1e9:.1f} GB of RAM free"
        gpu = "no GPU"
        if self.cuda:
            major, minor = self.capability
            dtype = "with bfloat16" if self.bf16 else "without bfloat16"
            gpu = (
                f"{self.gpu} (compute capability {major}.{minor}, {dtype}, "
                f"{self.gpu_free_bytes / 1e9:.1f} GB free)"
            )
        return f"{gpu}; {ram}; installed: {', '.join(packages) or 'no further package'}"


def found() -> Hardware:
    """This machine. The branch with a GPU has never been run within this project."""
    machine = Hardware(
        cores=_cores(),
        memory_bytes=_free_bytes(),
        bitsandbytes=_installed("bitsandbytes"),
        unsloth=_installed("unsloth"),
        peft=_installed("peft"),
    )
    if not torch.cuda.is_available():
        return machine
    free_bytes, _ = torch.cuda.mem_get_info(0)
    return dataclasses.replace(
        machine,
        gpu=torch.cuda.get_device_name(0),
        gpu_free_bytes=free_bytes,
        capability=torch.cuda.get_device_capability(0),
        bf16=torch.cuda.is_bf16_supported(),
    )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: the plan does without
    return 0
