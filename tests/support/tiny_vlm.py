"""A vision-language model of a third of a million parameters, of a real class (Qwen3-VL), with its processor.

`python tests/support/tiny_vlm.py` writes tests/fixtures/tiny_vlm: a random network that has learned two things in minutes on a
CPU: to answer any picture and prompt with JSON of random phrases, and a listener's question with one of the answers that it names,
at random. It sees pictures (they change its logits) and knows nothing.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from locations import FIXTURES
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from pseudoris_cli.prompting.prompts import KINDS, load_prompt
from pseudoris_cli.prompting.questions import Question, spoken_labels, token_labels
from pseudoris_cli.prompting.views import Shown

FOLDER = FIXTURES / "tiny_vlm"
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
LABELS = ["Yes", "No", "none", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *map(str, range(10))]
COLOURS = ("red", "blue", "green", "yellow")
THINGS = ("disc", "square", "star", "ring")
PLACES = ("on the left", "on the right", "at the top", "at the bottom")
SIZES = ("large", "small")
TEMPLATE = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string -%}{{ m.content }}{%- else -%}"
    "{%- for c in m.content -%}{%- if c.type == 'image' or 'image' in c or 'image_url' in c -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif 'text' in c -%}{{ c.text }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def phrase(rng: random.Random) -> dict[str, str]:
    """A random expression with its kind."""
    colour, thing, place, size = map(rng.choice, (COLOURS, THINGS, PLACES, SIZES))
    text, kind = rng.choice(
        [
            (f"the {colour} {thing}", "attribute"),
            (f"the {thing} {place}", "position"),
            (f"the {size} {colour} {thing}", "attribute"),
        ]
    )
    return {"text": text, "kind": kind}


def answer(rng: random.Random, count: int = 2) -> str:
    """An answer as it is asked for."""
    return json.dumps({"expressions": [phrase(rng) for _ in range(count)]})


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of our prompts and answers; labels of decisions are single tokens."""
    rng = random.Random(0)
    texts = [
        load_prompt("refer", "marks+crop", style, "English", 2).text(Shown((), 1, 3))
        for style in ("free", "refcoco", "refcoco+")
    ]
    texts += [answer(rng) for _ in range(400)] + [" ".join(KINDS), "Which numbered object does the expression mean?"]
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"[A-Za-z]+| [a-z]+|\d|[^A-Za-z\d]+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.add_tokens(LABELS)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL[1:]
    )
    for label in LABELS:
        assert len(fast.encode(label, add_special_tokens=False)) == 1, label
    return fast


def processor(with_images: bool = True) -> Qwen3VLProcessor:
    """The processor: pictures of at most 64 x 64 pixels make at most four tokens each."""
    images = Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2)
    images.size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    return Qwen3VLProcessor(
        image_processor=images, tokenizer=tokenizer(), video_processor=Qwen3VLVideoProcessor(), chat_template=TEMPLATE
    )


def network(of: Qwen3VLProcessor, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """A random network for the processor's vocabulary."""
    ids = {name: of.tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 10000.0}
    text = {
        "vocab_size": len(of.tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "rope_parameters": rope,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0, 1],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    made = Qwen3VLForConditionalGeneration(config).eval()
    made.generation_config = GenerationConfig(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=True
    )
    return made


def _asked(rng: random.Random) -> tuple[str, str]:
    """A listener's question as the backend asks it, and one of its answers."""
    count = rng.randrange(1, 13)
    question = Question(phrase(rng)["text"], count, rng.randrange(1, count + 1) if rng.random() < 0.3 else None)
    labels = rng.choice((token_labels, spoken_labels))(question)
    return question.text(labels), rng.choice(labels)


def _example(of: Qwen3VLProcessor, rng: random.Random) -> dict[str, Any]:
    """A request as a backend makes it, with an answer; labels are -100 outside of the answer."""
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (64, 64, 3), np.uint8)
    if rng.random() < 0.4:
        text, said = _asked(rng)
        content = [{"type": "image", "image": Image.fromarray(pixels)}, {"type": "text", "text": text}]
        return _tokens(of, [{"role": "user", "content": content}], said)
    count = rng.choice((1, 2, 2, 2))
    style = rng.choice(("free", "refcoco", "refcoco+", "refcocog"))
    view = rng.choice(("marks+crop", "contour+crop", "crop"))
    text = load_prompt("refer", view, style, "English", 2).text(Shown((), rng.randrange(1, 9), rng.randrange(1, 9)))
    if rng.random() < 0.3:
        text = " ".join(rng.choice(text.split()) for _ in range(rng.randrange(2, 40)))
    pictures = [{"type": "image", "image": Image.fromarray(pixels)} for _ in range(1 if view == "crop" else 2)]
    messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]
    if rng.random() < 0.2:
        messages = [{"role": "user", "content": text}]
    return _tokens(of, messages, answer(rng, count))


def _tokens(of: Qwen3VLProcessor, messages: list[dict[str, Any]], said_text: str) -> dict[str, Any]:
    asked = of.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    said = of.tokenizer(said_text + "<|im_end|>", return_tensors="pt", add_special_tokens=False)["input_ids"]
    whole = torch.cat([asked["input_ids"], said], 1)
    labels = torch.cat([torch.full_like(asked["input_ids"], -100), said], 1)
    kinds = torch.cat([asked["mm_token_type_ids"], torch.zeros_like(said)], 1) if "mm_token_type_ids" in asked else None
    found = {"input_ids": whole, "attention_mask": torch.ones_like(whole), "labels": labels}
    if kinds is not None:
        found["mm_token_type_ids"] = kinds
    return found | {name: asked[name] for name in ("pixel_values", "image_grid_thw") if name in asked}


def train(net: Qwen3VLForConditionalGeneration, of: Qwen3VLProcessor, seconds: float) -> float:
    """Teach the form of an answer for so long; the loss at the end."""
    rng = random.Random(1)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    net.train()
    ends, losses = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        left = (ends - time.monotonic()) / seconds
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * max(0.02, left)
        loss = sum(net(**_example(of, rng)).loss for _ in range(4)) / 4
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    net.eval()
    return float(np.mean(losses[-20:]))


def save(folder: Path, net: Qwen3VLForConditionalGeneration, of: Qwen3VLProcessor) -> None:
    """As transformers serve reads it, in half precision."""
    net.half().save_pretrained(folder)
    of.save_pretrained(folder)


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    parts = processor()
    model = network(parts)
    print(sum(p.numel() for p in model.parameters()), "parameters", len(parts.tokenizer), "tokens")
    print("loss", train(model, parts, float(sys.argv[1]) if len(sys.argv) > 1 else 90))
    save(FOLDER, model, parts)
