"""The memory of the demo's listener: crops of an image's objects, or a chunk of texts with all objects beside each."""

from __future__ import annotations

from pseudoris_cli.networks.listener.inputs import LONGEST, SIZE
from pseudoris_cli.networks.listener.network import HEADS, WIDTH, SceneListener
from pseudoris_cli.networks.memory import MASKS, Memory, on_meta, stored


def memory(words: int, texts: int, masks: int = MASKS) -> Memory:
    """Of a vocabulary of so many words, and of so many texts in one call; in float32, as it always is."""
    network = on_meta(f"listener {words}", lambda: SceneListener(words))
    crops = masks * SIZE**2 * 94  # the first convolutions, 24 channels each
    length = LONGEST + masks
    block = length * WIDTH * 11 + HEADS * length**2 * 2  # residuals, norm, q, k, v, hidden layer; bias of the attention
    return Memory(stored(network), 4 * max(crops, texts * (block + 6 * masks**2)))
