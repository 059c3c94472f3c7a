"""The backbone: ResNet bottlenecks (He et al., 2016; stride in the 3x3) and a feature pyramid (Lin et al., 2017).

Every convolution here is followed by batch normalisation and has no bias, in the pyramid too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True, slots=True)
class Sizes:
    """Channels and counts; the defaults are those of R50-FPN. Later ResNet stages double `bottleneck` and `out`."""

    stem: int = 64
    bottleneck: int = 64
    out: int = 256
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    pyramid: int = 256
    box_hidden: int = 1024
    mask_channels: int = 256
    proposals: int = 1000


class ConvNorm(nn.Conv2d):
    """A convolution with batch normalisation, named `norm` inside it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, each normalised, plus the shortcut."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if inputs != outputs else None
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, 3, stride)
        self.conv3 = ConvNorm(width, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu_(self.conv1(x))
        y = self.conv3(F.relu_(self.conv2(y)))
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Module):
    """A 7x7 convolution with stride 2, then 3x3 max pooling with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels, 7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """The feature maps of stride 4, 8, 16 and 32."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.stem = Stem(sizes.stem)
        inputs = sizes.stem
        for number, blocks in enumerate(sizes.blocks):
            width, outputs = sizes.bottleneck << number, sizes.out << number
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, outputs, stride=2 if block == 0 and number > 0 else 1))
                inputs = outputs
            self.add_module(f"res{number + 2}", stage)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, maps = self.stem(x), []
        for number in range(2, 6):
            x = self.get_submodule(f"res{number}")(x)
            maps.append(x)
        return maps


class ResNetFPN(nn.Module):
    """Pixels [N, 3, H, W] (sides multiples of 32) to p2...p6, [N, C, H/4, W/4] ... [N, C, H/64, W/64]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        for number in range(2, 6):
            self.add_module(f"fpn_lateral{number}", ConvNorm(sizes.out << (number - 2), sizes.pyramid, 1))
            self.add_module(f"fpn_output{number}", ConvNorm(sizes.pyramid, sizes.pyramid, 3))
        self.bottom_up = ResNet(sizes)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps = self.bottom_up(pixels)
        pyramid: list[torch.Tensor] = []
        above: torch.Tensor | None = None
        for number in range(5, 1, -1):
            lateral = self.get_submodule(f"fpn_lateral{number}")(maps[number - 2])
            above = lateral if above is None else lateral + F.interpolate(above, scale_factor=2.0, mode="nearest")
            pyramid.insert(0, self.get_submodule(f"fpn_output{number}")(above))
        pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid


def fold_norms(module: nn.Module) -> None:
    """Fold every batch normalisation into its convolution, for inference only."""
    for conv in module.modules():
        if isinstance(conv, ConvNorm) and isinstance(conv.norm, nn.BatchNorm2d):
            norm = conv.norm
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
            conv.weight = nn.Parameter(conv.weight.detach() * scale[:, None, None, None], requires_grad=False)
            conv.bias = nn.Parameter(norm.bias.detach() - norm.running_mean * scale, requires_grad=False)
            conv.norm = nn.Identity()
