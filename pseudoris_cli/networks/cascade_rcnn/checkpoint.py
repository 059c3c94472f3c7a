"""Checkpoints in detectron2's layout, loaded strictly: a missing, unexpected or misshapen tensor is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pseudoris_cli.errors import UsageError

IGNORED = re.compile(r"pixel_mean|pixel_std|.*anchor_generator\.cell_anchors.*")
"""Constants that older versions of detectron2 stored with the weights."""
_SHOWN = 6


def state_dict_of(checkpoint: Mapping[str, Any], name: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name: unwrapped from `model`, without the `module.` of data parallelism.

    Numpy arrays become tensors. Raises UsageError for anything else among the weights, and for values that are not finite.
    """
    inner = checkpoint.get("model", checkpoint)
    if not isinstance(inner, Mapping) or not inner:
        raise UsageError(f"{name}: its `model` is a {type(inner).__name__}, not a mapping of names to tensors")
    wrapped = all(isinstance(key, str) and key.startswith("module.") for key in inner)
    state: dict[str, torch.Tensor] = {}
    for key, value in inner.items():
        key = str(key).removeprefix("module.") if wrapped else str(key)
        if IGNORED.fullmatch(key):
            continue
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub":
            value = torch.as_tensor(value)
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{name}: {key!r} is a {type(value).__name__}, not a tensor")
        if not value.isfinite().all():
            raise UsageError(f"{name}: {key!r} holds numbers that are not finite; the file is damaged")
        state[key] = value
    return state


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Copy `state` into the model. Raises UsageError naming what is missing, unexpected or of another shape."""
    expected = model.state_dict()
    wrong = [
        f"{key} is {list(state[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = [
        _listing("missing", [key for key in expected if key not in state]),
        _listing("unexpected", [key for key in state if key not in expected]),
        _listing("misshapen", wrong),
    ]
    if any(faults):
        raise UsageError(
            f"{name} does not fit this Cascade Mask R-CNN: {'; '.join(fault for fault in faults if fault)}\n"
            "`model` and `checkpoint` must belong together; the official CutLER file goes with model: r50_fpn"
        )
    model.load_state_dict(dict(state))


def _listing(what: str, keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{more})" if keys else ""
