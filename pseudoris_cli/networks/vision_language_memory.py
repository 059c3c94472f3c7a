"""The memory of a vision-language model: a request's pictures in the image tower, its tokens in the layers, and the KV cache.

The terms are those of Qwen3-VL in transformers, which were compared with the allocator's count; other models have like ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pseudoris_cli.networks import transformers_models
from pseudoris_cli.networks.memory import Memory, Work, stored
from pseudoris_cli.networks.numerics import dtype_of
from pseudoris_cli.settings.models import Numerics


@dataclass(frozen=True, slots=True)
class Request:
    """One question as the network sees it: tokens, those of them that stand for pictures, patches, numbers in the pixel tensor."""

    tokens: int
    of_pictures: int
    patches: int
    numbers: int


@lru_cache(maxsize=4)
def request(folder: Path, named: str, pictures: Sequence[tuple[int, int]], text: str) -> Request:
    """A question with blank pictures of these sizes (width, height), by the model's own processor."""
    from PIL import Image
    from transformers import AutoProcessor

    processor = transformers_models.read_processor(AutoProcessor, folder, named)
    content = [{"type": "image", "image": Image.new("RGB", size)} for size in pictures]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    made = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids, pixels = made["input_ids"], made.get("pixel_values")
    numbers = pixels.numel() if pixels is not None else 0
    of_pictures = int((ids == getattr(processor, "image_token_id", -1)).sum())
    patches = int(pixels.shape[0]) if pixels is not None and pixels.dim() == 2 else 4 * of_pictures
    return Request(ids.shape[1], of_pictures, patches, numbers)


@lru_cache(maxsize=4)
def blank(folder: Path, named: str, numerics: Numerics) -> Any:
    """The network without memory, in the configured precision."""
    from transformers import AutoModelForImageTextToText

    return transformers_models.blank_auto(AutoModelForImageTextToText, folder, named).to(dtype_of(numerics))


def generation(network: Any, asked: Request, together: int, new_tokens: int, work: Work) -> Memory:
    """Of answers of so many tokens to `together` such requests."""
    config = network.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    length = asked.tokens + new_tokens
    cache = work.bytes * together * length * config.num_hidden_layers * 2 * heads * head
    masked = together * asked.tokens**2 * (1 + work.bytes)  # requests of unequal lengths are padded
    logits = together * config.vocab_size * 4 * 3
    inputs = together * asked.numbers * work.bytes
    read = _read(network, asked, together, work) + masked + logits
    return Memory(stored(network), inputs + max(_seen(network, asked, together, work), read), cache)


def one_by_one(network: Any, asked: Request, prepared: int, work: Work) -> Memory:
    """Of one pass without a cache for each of `prepared` requests, whose pictures are all on the device."""
    inputs = prepared * asked.numbers * 4
    cast = 1.5 * asked.numbers * work.bytes if work.bytes < 4 else 0  # for the first convolution
    passed = max(cast, _seen(network, asked, 1, work), _read(network, asked, 1, work))
    return Memory(stored(network), inputs + passed)


def _seen(network: Any, asked: Request, together: int, work: Work) -> float:
    """The image tower: positions are turned in float32, in which q and k are twice; or the hidden layer twice."""
    vision = network.config.vision_config
    width = vision.hidden_size
    head = width // getattr(vision, "num_heads", getattr(vision, "num_attention_heads", 1))
    hidden = getattr(vision, "intermediate_size", 4 * width)
    turned = 4 * (8 * width + 4 * head) + work.bytes * 3 * width
    return together * asked.patches * max(turned, work.bytes * (2 * hidden + 5 * width))


def _read(network: Any, asked: Request, together: int, work: Work) -> float:
    """The language model over a request: gate, up and their product, residual and attention; and what it was given of pictures."""
    config, vision = network.config.get_text_config(), network.config.vision_config
    width, hidden = config.hidden_size, config.intermediate_size
    given = 1 + 2.5 * len(getattr(vision, "deepstack_visual_indexes", None) or ())
    pictures = asked.of_pictures * width * given + asked.patches * vision.hidden_size
    return together * work.bytes * (asked.tokens * (3 * hidden + 5 * width) + pictures)
