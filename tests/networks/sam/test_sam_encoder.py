"""The image encoder against segment_anything's own."""

from __future__ import annotations

import pytest
import torch

from pseudoris_cli.networks.sam import encoder as sam_encoder
from pseudoris_cli.networks.sam.sizes import SIZES, Size, empty, randomise

# windows that stick out of the grid, windows that fit, and none; two images at once
SHAPES = [SIZES["tiny"], Size(32, 2, 2, (1,), image=128, window=4, decoder_width=64), SIZES["demo"]]


@pytest.mark.parametrize("size", SHAPES, ids=["padded windows", "fitting windows", "global"])
@pytest.mark.parametrize("limit", [1 << 20, 70, 1], ids=["one block", "some rows", "one row"])
def test_it_is_the_official_encoder(size: Size, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam_encoder, "CPU_BIAS", limit * (size.image // size.patch))
    generator = torch.Generator().manual_seed(0)
    encoder = randomise(empty(size), generator).image_encoder
    for name, parameter in encoder.named_parameters():
        if parameter.dim() == 1 or "rel_pos" in name:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    pixels = torch.randn(2, 3, size.image, size.image, generator=generator)
    with torch.inference_mode():
        expected = encoder(pixels)
        assert float((sam_encoder.encode(encoder, pixels) - expected).abs().max()) < 1e-4 * float(expected.abs().max())
        encoder.double()
        exact = encoder(pixels[:1].double())
        assert float((sam_encoder.encode(encoder, pixels[:1].double()) - exact).abs().max()) < 1e-11
