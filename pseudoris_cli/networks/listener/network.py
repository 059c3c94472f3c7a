"""The listener's network: objects and words in one sequence, "fits" per object, and the choice that follows from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pseudoris_cli.networks.listener.inputs import GEOMETRY, LONGEST

WIDTH, HEADS, LAYERS = 128, 4, 3
RELATIVE = 5
"""Numbers of a pair of objects: offsets in x and y and their sizes, and the log of the ratio of areas."""


class SceneListener(nn.Module):
    """Which objects of a picture fit an expression.

    `temperature` is a factor of the logits that was fitted on other scenes after training, so that probabilities are
    frequencies; it is part of the weights.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.look = nn.Sequential(_stage(4, 24), _stage(24, 48), _stage(48, 96))
        self.seen = nn.Linear(2 * 96, WIDTH)
        self.place = nn.Linear(GEOMETRY, WIDTH)
        self.word = nn.Embedding(words, WIDTH, padding_idx=0)
        self.position = nn.Parameter(torch.randn(LONGEST, WIDTH) * 0.02)
        self.between = nn.Sequential(nn.Linear(RELATIVE, 32), nn.GELU(), nn.Linear(32, LAYERS * HEADS))
        self.read = _Block()
        self.joint = nn.ModuleList([_Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.fits = nn.Sequential(nn.Linear(3 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))
        self.register_buffer("temperature", torch.ones(()))

    def encode(self, crops: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Objects from crops uint8 [N, 4, S, S] and places [N, GEOMETRY]: [N, WIDTH]."""
        maps = self.look(crops.to(self.position.dtype) / 255 - 0.5)
        return self.seen(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)) + self.place(places)

    def forward(
        self, objects: torch.Tensor, places: torch.Tensor, present: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        """Logits of "fits the expression", [E, M].

        objects [E, M, WIDTH] and places [E, M, GEOMETRY] of each expression's picture, present bool [E, M], words int64
        [E, LONGEST]. Absent objects have a logit of -30.
        """
        longest = max(int((words != 0).sum(1).max()), 1)
        words = words[:, :longest]
        said = words != 0
        text = self.read(self.word(words) + self.position[:longest], _mask(said))
        whole = (text * said[..., None]).sum(1, keepdim=True) / said.sum(1).clamp(min=1)[:, None, None]
        sequence = torch.cat([text, objects + whole], 1)
        seen = _mask(torch.cat([said, present], 1))
        relative = self.between(_pairs(places)).permute(0, 3, 1, 2)  # [E, LAYERS * HEADS, M, M]
        for layer, block in enumerate(self.joint):
            bias = F.pad(relative[:, layer * HEADS : (layer + 1) * HEADS], (longest, 0, longest, 0))
            sequence = block(sequence, seen + bias)
        decided = torch.cat([self.norm(sequence[:, longest:]), objects, whole.expand_as(objects)], -1)
        logits = self.fits(decided)[..., 0] * self.temperature
        return logits.masked_fill(~present, -30.0)


def choice(fits: torch.Tensor) -> torch.Tensor:
    """Logits of "fits" [E, M] to probabilities [E, M + 1] of "this one and no other"; the last column is none or several."""
    yes, no = F.logsigmoid(fits), F.logsigmoid(-fits)
    alone = (yes + no.sum(1, keepdim=True) - no).exp()
    return torch.cat([alone, (1 - alone.sum(1, keepdim=True)).clamp(min=0)], 1)


class _Block(nn.Module):
    """Pre-norm attention with an additive bias, and a two-layer perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """x [E, L, WIDTH]; bias broadcastable to [E, HEADS, L, L]."""
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(*q.shape[:3], q.shape[2]))
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def _stage(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU()),
        *(nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU()),
        nn.MaxPool2d(2),
    )


def _mask(present: torch.Tensor) -> torch.Tensor:
    """Additive attention bias [E, 1, 1, L]: a large negative number for what is not there."""
    return torch.zeros(present.shape, device=present.device).masked_fill(~present, -1e4)[:, None, None]


def _pairs(places: torch.Tensor) -> torch.Tensor:
    """Numbers of every pair of objects, [E, M, M, RELATIVE]."""
    centre, size = places[..., :2], places[..., 4]
    offset = centre[:, :, None] - centre[:, None]
    ratio = size[:, :, None] - size[:, None]
    return torch.cat([4 * offset, 4 * offset.abs(), ratio[..., None]], -1)
