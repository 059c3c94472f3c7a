"""open_clip configurations that open_clip does not ship: the demo's (weights by `training/train_clip.py`)."""

from __future__ import annotations

from typing import Any

DEMO: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 611, "width": 128, "heads": 4, "layers": 2},
}
"""Its tokenizer: `SimpleTokenizer(bpe_path=pseudoris_cli/demo/weights/bpe.txt.gz, context_length=24)` of open_clip."""

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""For tests: open_clip's own vocabulary."""
