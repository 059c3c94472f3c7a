"""How numbers are computed on a device, from the `numerics` settings."""

from __future__ import annotations

import torch

from pseudoris_cli.config import Numerics

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(numerics: Numerics) -> torch.dtype:
    """The floating-point type that weights and activations are kept in."""
    return _DTYPES[numerics.precision]


def set_matmul(numerics: Numerics) -> None:
    """Allow or forbid TF32 for fp32 products on CUDA; forbidden by default, as the recordings are true fp32."""
    torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    torch.backends.cudnn.allow_tf32 = numerics.tf32
