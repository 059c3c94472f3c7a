"""Files that hold a CLIP: safetensors, checkpoints of several makers, and OpenAI's TorchScript archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.weights import tensors
from pseudoris_cli.weights.unwrapping import unwrapped

OPENAI_ARCHIVES = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B-32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L-14-336": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
"""sha256 of OpenAI's TorchScript archives, as published in their download addresses."""

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Integers that OpenAI keeps beside the weights."""

ANCHORS = frozenset(
    {
        "logit_scale",
        "visual.conv1.weight",
        "visual.proj",
        "visual.class_embedding",
        "visual.attnpool.positional_embedding",
    }
    | {
        f"{tower}{name}"
        for tower in ("", "text.")
        for name in ("token_embedding.weight", "ln_final.weight", "text_projection")
    }
)
"""Names that some CLIP has; the network is built by what the file holds, so they are not asked of it."""


def read_state(path: Path, digest: str) -> dict[str, Any]:
    """Names to tensors, from safetensors, a plain checkpoint, or OpenAI's archive (checked before it is opened).

    UsageError (exit 2) for a TorchScript archive whose sha256 is not one that OpenAI published.
    """
    import torch

    if not tensors.is_torchscript(path):
        state = tensors.load_tensors(path)
        return unwrapped(state, ANCHORS, str(path))
    if digest not in OPENAI_ARCHIVES.values():
        raise UsageError(
            f"{path} is a TorchScript archive, which can run code, and OpenAI published none with its sha256\n"
            f"{digest}\nfetch it again:  pseudoris weights fetch clip_rn50   or give the weights as safetensors"
        )
    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
