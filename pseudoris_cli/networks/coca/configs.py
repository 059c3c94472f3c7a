"""open_clip configurations that open_clip does not ship: the demo's (weights by `training/train_coca.py`)."""

from __future__ import annotations

from typing import Any

DEMO: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 8,
        "width": 128,
        "layers": 4,
        "head_width": 32,
        "attentional_pool": True,
        "attn_pooler_queries": 17,
        "attn_pooler_heads": 4,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 611,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 24,
        "vocab_size": 611,
        "width": 128,
        "heads": 4,
        "layers": 3,
        "attn_pooler_heads": 4,
    },
    "custom_text": True,
}
"""Its tokenizer: `SimpleTokenizer(bpe_path=pseudoris_cli/demo/weights/bpe.txt.gz, context_length=24)` of open_clip."""

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "attentional_pool": True,
        "attn_pooler_queries": 9,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 611,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 32,
        "vocab_size": 611,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "attn_pooler_heads": 2,
    },
    "custom_text": True,
}
"""For tests: the demo's vocabulary, so that random captions cost little."""
