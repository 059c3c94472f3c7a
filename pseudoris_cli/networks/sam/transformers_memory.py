"""The memory of automatic masks by a network of transformers: traces of encoder and decoder, and masks at the image's pixels."""

from __future__ import annotations

import torch

from pseudoris_cli.networks.memory import Memory, Work, stored
from pseudoris_cli.networks.sam.automatic import encoded_together
from pseudoris_cli.networks.sam.memory import at_pixels
from pseudoris_cli.networks.sam.promptable import Size
from pseudoris_cli.networks.sam.transformers_network import TransformersSam
from pseudoris_cli.networks.traced import held_by


def memory(network: TransformersSam, work: Work, size: Size) -> Memory:
    """Of a network on the meta device in the run's precision, for images of this size."""
    pixels = torch.empty(3, network.square, network.square, device="meta")
    together = encoded_together(work.images) if work.on_gpu else 1
    encode, _ = held_by(lambda: network.encode([pixels] * together))

    def decode() -> object:
        network.set_crop(embedding, size)
        return network.decode(network.grid(network.chunk)[: network.chunk], None)

    with torch.no_grad():
        [embedding] = network.encode([pixels])
    network.release()
    decoded, _ = held_by(decode)
    network.release()
    return Memory(stored(network.model), max(encode, at_pixels(network.chunk, work, size[0] * size[1])), decoded)
