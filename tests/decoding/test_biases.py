"""With every bias and norm at work, as in released weights (random ones have 0 and 1), states equal the plain network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_captions import plain_logits
from small_coca import crops, network

from pseudoris_cli.decoding.kv_cache import PrefixStates
from pseudoris_cli.decoding.network import CaptionNetwork


def test_every_bias_and_norm_takes_part() -> None:
    net, generator = network(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in net.coca.named_parameters():
            if parameter.dim() == 1 and "visual" not in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    prefixes = torch.tensor([[5, 9, 2], [5, 9, 7], [40, 1, 2]])
    prefix, crop = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])
    with torch.inference_mode():
        tokens = net.encode(crops(3), 8)[1]
        states = PrefixStates(net, net.precompute_cross_kv(tokens), 3, 5, 3)
        parents = np.arange(3)
        for length in range(1, 4):
            parents, hidden = states.advance(parents, prefixes[:, length - 1].numpy(), prefix, crop)
            expected = plain_logits(net.coca, tokens[torch.from_numpy(crop)], prefixes[prefix, :length])[:, -1]
            torch.testing.assert_close(net.logits(hidden), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_run_in_the_configured_type(dtype: torch.dtype) -> None:
    net = CaptionNetwork(network().coca, dtype)
    with net.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
