"""The shipped form of the weights: fp16 safetensors with their provenance in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def save(model: torch.nn.Module, path: Path, provenance: dict[str, object]) -> None:
    """Write every tensor of the model, floats in half precision; the file appears complete or not at all."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, {key: json.dumps(value) for key, value in provenance.items()})
    temporary.replace(path)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Learning rate of a step: linear warm-up, flat until 60 % of the steps, then linearly down to 1 % of the peak."""
    decay = max(0.0, step / steps - 0.6) / 0.4
    return peak * min(1.0, (step + 1) / warmup) * (1 - 0.99 * decay)
