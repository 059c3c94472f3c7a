"""The upscaling of SAM's mask decoder as matrix products, exact up to rounding.

A transposed convolution of kernel 2 and stride 2 has no overlap: it is a product of each token with a [C, 4·c] matrix whose
four groups of columns are the four sub-pixels. So the tokens remain rows of a matrix through

    first convolution (done by the caller) -> LayerNorm over c -> GELU -> second convolution -> GELU -> hypernetwork dot

(SAM 2 adds features of the image after each convolution) and only the three mask logits per sub-pixel are rearranged to pixels,
not their 32 features. On a CPU the rows are processed in blocks that fit in the cache, on a GPU all at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from pseudoris_cli.networks.sam.buffers import Buffers

CPU_TOKENS = 1024
"""Tokens in a block on a CPU: 2 MB of float32 features after the second convolution."""

FirstConvolution = Callable[[slice, slice], Tensor]
"""Prompts, tokens -> [n, m, 4·c], the first transposed convolution of those tokens with its bias, to be changed in place."""


class Upscaler:
    """`MaskDecoder.output_upscaling` and the product with the outputs of the hypernetworks."""

    def __init__(self, layers: nn.Sequential, buffers: Buffers) -> None:
        first, norm, _, second, _ = layers
        assert isinstance(first, nn.ConvTranspose2d)
        assert isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        self.buffers, self.norm = buffers, norm
        self.first_weight, self.first_bias = _as_product(first)
        self.second_weight, self.second_bias = _as_product(second)
        self.added: tuple[Tensor, Tensor] | None = None

    def compile(self) -> None:
        """Compile the function that runs for every block of tokens."""
        self._features = torch.compile(self._features)  # type: ignore[method-assign]

    def set_features(self, features: tuple[Tensor, Tensor] | None, order: Tensor) -> None:
        """What is added for one image after the first convolution [1, c, 2h, 2w] and after the second [1, c/2, 4h, 4w].

        `order` are the tokens in use, by their position in the row-major grid h x w.
        """
        if features is None:
            self.added = None
            return
        first, second = (feature[0].permute(1, 2, 0) for feature in features)
        # token rows and columns outermost, then the sub-pixels of the first convolution, then those of the second
        by_token = first.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).transpose(1, 2).flatten(0, 1)
        finer = second.unflatten(1, (-1, 2, 2)).unflatten(0, (-1, 2, 2)).permute(0, 3, 1, 4, 2, 5, 6).flatten(0, 1)
        self.added = by_token[order].flatten(1), finer[order].flatten(3).flatten(1, 2)

    def __call__(self, first: FirstConvolution, hyper: Tensor, visible: tuple[int, int]) -> Tensor:
        """Mask logits [n, K, 4·vh, 4·vw] float32 from hypernetwork rows [n, K, c/2]; the tokens are vh × vw, row-major."""
        height, width = visible
        tokens, (count, masks, channels) = height * width, hyper.shape
        on_cpu = hyper.device.type == "cpu"
        prompt_step, token_step = (1, CPU_TOKENS) if on_cpu else (count, tokens)
        flat = self.buffers("logits", (count, masks, tokens * 16), hyper)
        for p in range(0, count, prompt_step):
            prompts = slice(p, min(p + prompt_step, count))
            for t in range(0, tokens, token_step):
                block = slice(t, min(t + token_step, tokens))
                convolved = first(prompts, block)
                added = None
                if self.added is not None:
                    convolved.add_(self.added[0][block])
                    added = self.added[1][block]
                features = self._features(convolved, added).view(prompts.stop - p, -1, channels)
                flat[prompts, :, 16 * block.start : 16 * block.stop] = hyper[prompts] @ features.transpose(1, 2)
        # sub-pixels of the first, then of the second convolution: (vh, vw, dy1, dx1, dy2, dx2)
        pixels = flat.view(count, masks, height, width, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return pixels.to(torch.float32).reshape(count, masks, 4 * height, 4 * width)

    def _features(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """[n, m, 4·c] after the first convolution to [n·m·4, 4·c/2] after the second and its GELU; added [m, 4, 4·c/2]."""
        channels = self.norm.weight.shape[0]
        rows = x.reshape(-1, channels)
        normed = F.layer_norm(rows, (channels,), self.norm.weight, self.norm.bias, self.norm.eps)
        torch.ops.aten.gelu_(normed)
        out = self.buffers("upscale features", (len(rows), self.second_weight.shape[1]), rows)
        torch.addmm(self.second_bias, normed, self.second_weight, out=out)
        if added is not None:
            out.view(-1, *added.shape).add_(added)
        return torch.ops.aten.gelu_(out)


def _as_product(convolution: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight [C, 4·c] and bias [4·c] of a kernel-2, stride-2 transposed convolution, sub-pixels (dy, dx) outermost."""
    weight, bias = convolution.weight.detach(), convolution.bias
    assert bias is not None
    return weight.permute(0, 2, 3, 1).flatten(1).contiguous(), bias.detach().repeat(4)
