"""Precision, TF32 and compilation, from the `numerics` settings."""

from __future__ import annotations

import os
import shutil

import torch

from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.settings.models import Numerics

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

RECOMPILE_LIMIT = 64
"""Compiled variants of a function before torch runs it uncompiled. Decoding needs about eight (first, middle and last position,
full or partial caches, sizes that happen to be equal), which is torch's own limit."""


def dtype_of(numerics: Numerics) -> torch.dtype:
    """The dtype of weights and activations."""
    return _DTYPES[numerics.precision]


def set_up(numerics: Numerics) -> None:
    """Allow or forbid TF32 for fp32 products on CUDA, and prepare torch.compile where it is set.

    Raises MissingDependency for `compile` without a C++ compiler, since torch.compile would fail at its first call, in the
    middle of a part. (On a GPU too: Triton builds its launchers with it.)
    """
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if numerics.compile and not any(map(shutil.which, compilers)):
        raise MissingDependency(
            f"numerics.compile needs a C++ compiler, and there is none on this machine (looked for {', '.join(compilers)})\n"
            "install one (e.g. apt install g++), name it in $CXX, or leave compile off: --set numerics.compile=false"
        )
    if numerics.compile:
        from torch._dynamo import config

        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # torch before 2.6
        setattr(config, limit, max(RECOMPILE_LIMIT, getattr(config, limit)))
    torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    torch.backends.cudnn.allow_tf32 = numerics.tf32
