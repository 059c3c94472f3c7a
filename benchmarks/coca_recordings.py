"""Recordings of the released caption code: their rules and network, and the same network in float64 as the judge of rounding."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudoris_cli.decoding.distinctive import SampleRow
from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.networks.coca.build import build_coca

LAYOUT = (
    *(f"dcs_M{masks}_{how}" for masks in (1, 2, 5) for how in ("argmax", "sampled")),
    "dcs_M30_oneStep_argmax",
    "dcs_M31_argmax",
    "beam_ref_tf4302",
)
"""The recordings that a folder may hold."""


class Recording:
    """One dcs_*.npz with the rules that it was made under."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.name, self.data = path.stem, np.load(path)
        found = re.match(r"dcs_M(\d+)_", self.name)
        if found is None:
            raise ValueError(f"{path} is not named dcs_M<masks>_*.npz")
        self.masks = int(found[1])
        self.argmax = self.name.endswith("argmax")
        special = f"m{self.masks}_"
        self.rules = DecodingRules(
            start=config["sot"],
            end=config["eos"],
            pad=config["pad"],
            top_k=tuple(config["top_k"]),
            top_p=tuple(config["top_p"]),
            contrast=1.0,
            contrast_form="literal",
            contrast_max_masks=30,
            similarity_clamp=None,
            pad_ends_row=True,
            min_length=config.get(special + "min_seq_len", config["min_seq_len"]),
            max_length=config.get(special + "seq_len", config["seq_len"]),
        )

    def rows(self) -> list[SampleRow]:
        """Sampler-major, as the release orders them."""
        return [SampleRow(0, crop, sampler) for sampler in range(self.rules.samplers) for crop in range(self.masks)]

    def matrix(self, captions: list[Generated]) -> np.ndarray:
        """Captions as the release returns them: start first, padded."""
        out = np.full((len(captions), 1 + max(len(c.tokens) for c in captions)), self.rules.pad)
        out[:, 0] = self.rules.start
        for row, caption in enumerate(captions):
            out[row, 1 : 1 + len(caption.tokens)] = caption.tokens
        return out


def load(folder: Path) -> tuple[CaptionNetwork, torch.Tensor, dict[str, Any]]:
    """The recorded network, its images [31, 3, 64, 64] and the recording's configuration."""
    config = json.loads((folder / "config.json").read_text())
    coca = build_coca(config["tiny_config"])
    with np.load(folder / "weights_fp16.npz") as arrays:
        coca.load_state_dict({name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files})
    images = torch.from_numpy(np.load(folder / "images31_fp16.npy").astype(np.float32))
    return CaptionNetwork(coca), images, config


class Exact:
    """The recorded rows in float64, by open_clip's own modules on whole sequences: what both sides round."""

    def __init__(self, coca: Any, images: torch.Tensor, recording: Recording) -> None:
        coca = deepcopy(coca).double()
        self.rules, self.masks = recording.rules, recording.masks
        self.projection = coca.text_decoder.text_projection.detach()
        coca.text_decoder.text_projection = None  # so that the decoder returns hidden states
        latents, tokens = coca.visual(images[: self.masks].double())
        latents = torch.nn.functional.normalize(latents, dim=-1)
        self.similarity = latents @ latents.T
        prefixes = torch.from_numpy(recording.data["final"][:, :-1].astype(np.int64))
        self.crop = torch.arange(len(prefixes)) % self.masks
        text = coca.text(prefixes)[1]
        beside = self.masks if self.rules.contrasts(self.masks) else 1
        hidden = [coca.text_decoder(tokens[(self.crop + step) % self.masks], text) for step in range(beside)]
        self.own = hidden[0]
        self.mean = torch.zeros_like(self.own)
        for step in range(1, beside):
            weight = self.similarity[self.crop, (self.crop + step) % self.masks] / (beside - 1)
            self.mean += weight[:, None, None] * hidden[step]

    def weights(self, kept: KeptTokens, alive: np.ndarray, length: int) -> np.ndarray:
        """The weight of every kept entry after prefixes of `length` tokens."""
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        row, columns = alive[owner], self.projection[:, kept.token].T
        own = (self.own[row, length - 1] * columns).sum(1).numpy()
        contrasted = own - (self.mean[row, length - 1] * columns).sum(1).numpy()
        weights = _softmax(contrasted, owner, kept.start)
        end = kept.token == self.rules.end
        weights[end] = _softmax(own, owner, kept.start)[end]
        return weights

    def margin(self, row: int, length: int) -> tuple[float, float]:
        """How firmly a row's keep set is decided: probability mass between its edge and p (1 for top-k), and the gap in
        own logits between the last token kept and the first not kept.
        """
        own = self.own[row, length - 1] @ self.projection
        if length < self.rules.min_length:
            own[self.rules.end] = -torch.inf
        ordered = own.sort(descending=True).values
        sampler, mass_gap = row // self.masks, 1.0
        if sampler < len(self.rules.top_k):
            last = self.rules.top_k[sampler] - 1
        else:
            share = self.rules.top_p[sampler - len(self.rules.top_k)]
            mass = ordered.softmax(0).cumsum(0)
            last = int((mass < share).sum())
            mass_gap = float((mass - share).abs().min())
        return mass_gap, float(ordered[last] - ordered[last + 1])


def _softmax(values: np.ndarray, row: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Softmax within each row of a CSR."""
    exponential = np.exp(values - np.maximum.reduceat(values, start[:-1])[row])
    return exponential / np.add.reduceat(exponential, start[:-1])[row]
