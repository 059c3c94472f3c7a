"""A device that has memory for one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def only_one_by_one(work: Callable[..., Any], place: int) -> Callable[..., Any]:
    """`work`, but out of memory for more than one image; `place`: which argument holds the images."""

    def limited(*arguments: Any) -> Any:
        if len(arguments[place]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return work(*arguments)

    return limited
