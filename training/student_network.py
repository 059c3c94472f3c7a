"""The student: a small network that is given a picture and an expression, and draws the mask of what is meant."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 64
CELL = 2
"""Pixels of the picture on a side of one cell of the drawn mask."""
FINE, THIN, DEEP, TEXT = 32, 16, 96, 96


class Eyes(nn.Module):
    """Convolutions over the picture, which are trained once and without expressions (train_student_eyes.py)."""

    channels = WIDTH + DEEP

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_convolution(3, 24, stride=2), _convolution(24, FINE))
        self.middle = nn.Sequential(_convolution(FINE, WIDTH, stride=2), _convolution(WIDTH, WIDTH))
        self.coarse = nn.Sequential(
            _convolution(WIDTH, DEEP, stride=2), _convolution(DEEP, DEEP), _convolution(DEEP, DEEP)
        )

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """RGB pictures [B, 3, H, W], 0..255, to maps [B, WIDTH + DEEP, H / 4, W / 4] and [B, FINE, H / 2, W / 2]."""
        fine = self.fine(pictures.float() / 127.5 - 1)
        x = self.middle(fine)
        deep = F.interpolate(self.coarse(x), size=x.shape[-2:], mode="bilinear")
        return torch.cat([x, deep], 1), fine


class Student(nn.Module):
    """The eyes, a small transformer over the words, and blocks in which the words steer the maps."""

    def __init__(self, words: int, longest: int) -> None:
        super().__init__()
        self.eyes = Eyes()
        self.join = nn.Conv2d(Eyes.channels + 2, WIDTH, 1)
        self.word = nn.Embedding(words, TEXT, padding_idx=0)
        self.position = nn.Parameter(torch.randn(longest, TEXT) * 0.02)
        self.read = nn.TransformerEncoderLayer(TEXT, 4, 2 * TEXT, dropout=0.0, batch_first=True, norm_first=True)
        self.sought, self.counts = nn.Linear(TEXT, WIDTH), nn.Linear(TEXT, 1)
        self.agree = nn.Conv2d(1, WIDTH, 1)
        self.steered = nn.ModuleList([Steered() for _ in range(2)])
        self.meant, self.edges = nn.Conv2d(WIDTH, THIN, 1), nn.Conv2d(FINE, THIN, 1)
        self.draw = nn.Conv2d(2 * THIN, 1, 3, padding=1)

    def look(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """RGB pictures [B, 3, H, W], 0..255, to maps [B, WIDTH, H / 4, W / 4] and edges [B, THIN, H / 2, W / 2]."""
        maps, fine = self.eyes(pictures)
        ys, xs = (torch.linspace(-1, 1, n) for n in maps.shape[-2:])
        place = torch.stack(torch.meshgrid(ys, xs, indexing="ij")).expand(len(maps), -1, -1, -1)
        return self.join(torch.cat([maps, place], 1)), self.edges(fine)

    def forward(self, maps: torch.Tensor, edges: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Logits [E, H / 2, W / 2] of the mask, from each expression's maps, edges and words int64 [E, L] (0: no word)."""
        said = words != 0
        each = self.word(words)
        # word by word: a cell agrees with an expression as far as it agrees with every word that counts
        agrees = F.logsigmoid(torch.einsum("elc,echw->elhw", self.sought(each), maps) / WIDTH**0.5)
        counts = self.counts(each).sigmoid() * said[..., None]
        agreed = (agrees * counts[..., None]).sum(1, keepdim=True)
        maps = maps + self.agree(agreed)
        text = self.read(each + self.position[: words.shape[1]], src_key_padding_mask=~said)
        whole = (text * said[..., None]).sum(1) / said.sum(1, keepdim=True)
        for block in self.steered:
            maps = block(maps, whole)
        meant = F.interpolate(self.meant(maps), size=edges.shape[-2:], mode="bilinear")
        agreed = F.interpolate(agreed, size=edges.shape[-2:], mode="bilinear")
        return (self.draw(F.relu(torch.cat([meant, edges], 1))) + agreed)[:, 0]


class Steered(nn.Module):
    """A residual block whose channels are scaled and moved by the text; each map also knows its mean over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.steer = nn.Linear(TEXT, 2 * WIDTH)
        self.whole = nn.Linear(WIDTH, WIDTH)
        self.enter = nn.Conv2d(WIDTH, WIDTH, 1)
        self.around = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH))

    def forward(self, maps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """maps [E, WIDTH, H, W] and text [E, TEXT]."""
        scale, shift = self.steer(text)[..., None, None].chunk(2, 1)
        steered = F.relu(self.enter(maps) * (1 + scale) + shift)
        steered = steered + self.whole(steered.mean((2, 3)))[..., None, None]
        return maps + F.relu(self.around(steered))


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(8, out), nn.ReLU())
