"""open_clip's networks, built without its factory and filled without guessing."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict

from pseudoris_cli.errors import MissingDependency, UsageError


def build(config: dict[str, Any], quick_gelu: bool) -> torch.nn.Module:
    """open_clip's network for a configuration; its own factory would set up logging and might download towers."""
    config["quick_gelu"] = config.get("quick_gelu", False) or quick_gelu
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    try:
        return kind(**config)
    except OSError as error:  # a text tower of transformers, whose configuration open_clip takes from the hub
        name = config["text_cfg"].get("hf_model_name")
        raise MissingDependency(
            f"the text tower {name!r} of this model is not in the cache of the Hugging Face hub\nget it with:  hf download {name} "
            "config.json"
        ) from error


def fill(model: torch.nn.Module, state: dict[str, Any], checkpoint: str, name: str) -> None:
    """Load the weights of open_clip's model `name` strictly. UsageError (exit 2) if `checkpoint` holds those of another."""
    if not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = " ".join(str(error).split())[:400]
        raise UsageError(
            f"{checkpoint} does not hold the weights of open_clip's {name}; "
            f"set filter.scorer.model to the model that they belong to\n{details}"
        ) from error
