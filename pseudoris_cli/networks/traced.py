"""The memory that work takes on a device, found by doing it on torch's meta device, where tensors have shapes and no values.

For networks of other packages, whose tensors no formula of ours can name. Attention counts what a fused kernel takes, its output.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Held(TorchDispatchMode):
    """Bytes that tensors made in the block hold, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._tensors: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)}
        for made in tree_iter(result):
            if isinstance(made, Tensor) and made.device.type == "meta":
                self._hold(made, given)
        return result

    def _hold(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in given and place not in self._tensors:
            return  # a view of what was there before
        if place not in self._tensors:
            self.now += size
            self.most = max(self.most, self.now)
        self._tensors[place] = self._tensors.get(place, 0) + 1
        weakref.finalize(tensor, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._tensors[place] -= 1
        if not self._tensors[place]:
            del self._tensors[place]
            self.now -= size


class _FusedAttention(TorchFunctionMode):
    """`scaled_dot_product_attention` as one kernel."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, value = args[0], args[2]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def held_by(work: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that are held at most during the work, and those that are held when it is done and its result is still there."""
    with torch.no_grad(), _Held() as held, _FusedAttention():
        result = work()
        after = held.now
        del result
    return held.most, after
