"""Load a vision-language model of transformers from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.networks.numerics import dtype_of, set_up
from pseudoris_cli.settings.models import Numerics


def load_vision_language(folder: Path, named: str, numerics: Numerics, device: str) -> tuple[Any, Any]:
    """Processor and network, ready on the device. `named` is the setting and its value, for errors.

    UsageError (exit 2) if transformers cannot load it or it reads no pictures.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    set_up(numerics)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        network = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype_of(numerics)
        )
    except (ValueError, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(f"{named}: transformers cannot load it as a model of pictures and text: {reason}") from error
    if getattr(processor, "image_processor", None) is None:
        raise UsageError(f"{named} reads no pictures; name a vision-language model")
    return processor, network.eval().to(torch.device(device))
