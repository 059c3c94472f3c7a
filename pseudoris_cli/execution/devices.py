"""From --gpu and --device to the device that a worker uses. torch is imported only when a worker is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pseudoris_cli.errors import UsageError

log = logging.getLogger("pseudoris")


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What the user asked for: a CUDA index, a device name, or neither (the first GPU, else the CPU)."""

    gpu: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.gpu is not None and self.device:
            raise UsageError("give --gpu or --device, not both")
        name = (self.device or "cpu").partition(":")[0]
        if name not in ("cpu", "cuda", "mps"):
            raise UsageError(f"--device {self.device!r}: choose cpu, mps, cuda or cuda:N")

    def resolve(self, silent: bool = False) -> str:
        """The torch device; that none was found is told, unless `silent`. UsageError (exit 2) if it is not on this machine."""
        import torch

        if self.gpu is None and self.device is None:
            if torch.cuda.is_available():
                return "cuda:0"
            if not silent:
                log.warning("no GPU found: running on the CPU (--device cpu says so without this notice)")
            return "cpu"
        name = f"cuda:{self.gpu}" if self.gpu is not None else str(self.device)
        kind, _, index = name.partition(":")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if kind == "cuda" and int(index or 0) >= count:
            found = f"this machine has {count} CUDA devices" if count else "torch finds no CUDA device on this machine"
            raise UsageError(f"{name} is not there: {found}; use --device cpu, or see `pseudoris doctor`")
        if kind == "mps" and not torch.backends.mps.is_available():
            raise UsageError("mps is not available on this machine; use --device cpu")
        return name
