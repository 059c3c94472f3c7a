"""open_clip's CoCa from a model name, with random weights or those of a checkpoint."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict

from pseudoris_cli.errors import UsageError
from pseudoris_cli.networks.coca import configs

_NO_WEIGHTS = ("attn_mask", "position_ids", "logit_bias")
"""Entries of checkpoints that are recomputed or unused."""


def coca_config(model: str) -> dict[str, Any]:
    """The configuration of `demo`, `tiny`, or a CoCa that open_clip ships.

    Raises UsageError for other names and for CoCas whose text tower is not open_clip's own.
    """
    own = {"demo": configs.DEMO, "tiny": configs.TINY}
    config = deepcopy(own.get(model) or open_clip.get_model_config(model) or {})
    text = config.get("text_cfg", {})
    if "multimodal_cfg" not in config or "hf_model_name" in text or not config["vision_cfg"].get("attentional_pool"):
        known = [name for name in open_clip.list_models() if name.startswith("coca_ViT")]
        raise UsageError(f"captions.model {model!r} is not a CoCa that can be decoded: use one of {', '.join(known)}")
    return config


def build_coca(model: str | dict[str, Any], seed: int = 0) -> Any:
    """A CoCa with random weights that depend on the seed alone, on the CPU.

    open_clip leaves the vocabulary projection uninitialised; here its scale gives logits about the spread of a trained
    captioner's, so that top-p sets have realistic sizes.
    """
    config = coca_config(model) if isinstance(model, str) else deepcopy(model)
    config.pop("custom_text", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        coca = open_clip.CoCa(**config)
        projection = coca.text_decoder.text_projection
        torch.nn.init.normal_(projection, std=4 * projection.shape[0] ** -0.5)
    return coca


def load_weights(coca: torch.nn.Module, checkpoint: dict[str, Any], name: str, model: str) -> None:
    """Load a state dict or a training checkpoint (`state_dict`, `module.` prefixes, old names) into the network.

    Raises UsageError naming the tensors that are missing, unknown or of another shape.
    """
    state = checkpoint.get("state_dict", checkpoint)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key.rsplit(".", 1)[-1] not in _NO_WEIGHTS}
    if "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    expected = coca.state_dict()
    if "logit_scale" in state and torch.is_tensor(state["logit_scale"]):
        state["logit_scale"] = state["logit_scale"].reshape(expected["logit_scale"].shape)
    faults = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
        "of another shape": [key for key in expected if key in state and state[key].shape != expected[key].shape],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {fault}, e.g. {keys[0]}" for fault, keys in faults.items() if keys)
        raise UsageError(
            f"checkpoint {name} does not hold the weights of {model}: {listed}\nset captions.model to its model"
        )
    coca.load_state_dict(state)
