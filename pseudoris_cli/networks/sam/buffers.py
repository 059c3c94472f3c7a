"""Named buffers that are used again and again.

On a CPU a fresh output of some megabytes costs more in page faults than the product that fills it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Workspace:
    """Uninitialised tensors by name; asking for a name again gives the same memory, whatever the shape."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A contiguous tensor of this shape on the device of `like`, of its type unless `dtype` says another."""
        dtype = dtype or like.dtype
        count = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count or buffer.dtype != dtype or buffer.device != like.device:
            self._buffers.pop(name, None)
            buffer = self._buffers[name] = torch.empty(count, dtype=dtype, device=like.device)
        return buffer[:count].view(tuple(shape))
