"""The KV cache of caption prefixes, shared by all rows that have the same prefix.

A *prefix* is a sequence of tokens, a *pair* a prefix together with a crop that the decoder attends to. Rows with equal
prefixes share the slots of both; when their prefixes diverge, the cache entries are copied; the slot of a finished row is
reused. This one mechanism covers the common first steps, finished rows and the reordering of beams.
"""

from __future__ import annotations

import numpy as np
import torch

from pseudoris_cli.decoding.network import QUERIES, ROWS, CaptionNetwork, CropQueries, CrossKV, round_up


class PrefixStates:
    """The self-attention KV caches of a chunk of rows: of their prefixes, all of one length, and of their pairs."""

    def __init__(self, network: CaptionNetwork, cross_kv: CrossKV, prefixes: int, pairs: int, length: int) -> None:
        """Allocate for this many prefixes and pairs of up to `length` tokens."""
        self.network, self.cross_kv = network, cross_kv
        self.crops = len(cross_kv.layers[0])
        self.length = 0
        prefixes, pairs = round_up(prefixes, ROWS), round_up(pairs, ROWS)
        text_layers, layers = len(network.text_blocks), len(network.decoder_blocks)
        text_shape = (network.text_heads, length, network.width // network.text_heads)
        shape = (network.heads, length, network.width // network.heads)
        self._text = torch.zeros(text_layers, 2, prefixes, *text_shape, dtype=network.dtype, device=network.device)
        self._pairs = torch.zeros(layers, 2, pairs, *shape, dtype=network.dtype, device=network.device)
        self._pair_keys = np.zeros(0, np.int64)
        self._pair_slots = np.zeros(0, np.int64)

    def advance(
        self, parents: np.ndarray, tokens: np.ndarray, pair_prefix: np.ndarray, pair_crop: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Append one token to the prefixes and compute the hidden states of the pairs.

        New prefix n is the old prefix in slot `parents[n]` (ignored at the first step) followed by `tokens[n]`; pair p is
        new prefix `pair_prefix[p]` with crop `pair_crop[p]`. From the second step on, the parent must have been paired
        with that crop in the step before. Returns the slots of the new prefixes [N], which are the `parents` of the next
        call, and the hidden states of the pairs, float32 [P, width].
        """
        slots, pair_slots = self._assign_slots(parents, pair_prefix, pair_crop)
        device = self.network.device
        count, pair_count = round_up(len(slots), ROWS), round_up(len(pair_slots), ROWS)
        token_by_slot = np.zeros(count, np.int64)
        token_by_slot[slots] = tokens
        prefix_by_slot = np.zeros(pair_count, np.int64)
        prefix_by_slot[pair_slots] = slots[pair_prefix]
        text = self.network.text_step(torch.from_numpy(token_by_slot).to(device), self._text[:, :, :count], self.length)
        queries = crop_queries(pair_crop, pair_slots, pair_count, device)
        hidden = self.network.decoder_step(
            text[torch.from_numpy(prefix_by_slot).to(device)],
            self._pairs[:, :, :pair_count],
            self.length,
            self.cross_kv,
            queries,
        )
        self.length += 1
        keys = slots[pair_prefix] * self.crops + pair_crop
        order = np.argsort(keys)
        self._pair_keys, self._pair_slots = keys[order], pair_slots[order]
        return slots, hidden[torch.from_numpy(pair_slots).to(device)]

    def _assign_slots(
        self, parents: np.ndarray, pair_prefix: np.ndarray, pair_crop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots of the new prefixes and pairs, with the caches of their parents copied there."""
        if self.length == 0:
            return np.arange(len(parents)), np.arange(len(pair_prefix))
        index = np.searchsorted(self._pair_keys, parents[pair_prefix] * self.crops + pair_crop)
        pair_parents = self._pair_slots[index]
        slots, pair_slots = choose_slots(parents), choose_slots(pair_parents)
        _copy(self._text, parents, slots, self.length)
        _copy(self._pairs, pair_parents, pair_slots, self.length)
        return slots, pair_slots


def choose_slots(parents: np.ndarray) -> np.ndarray:
    """Slots 0..n-1 for n items; one child of each parent keeps its parent's slot, so that little is copied."""
    slots = np.full(len(parents), -1)
    claimed, first = np.unique(parents, return_index=True)
    stays = claimed < len(parents)
    slots[first[stays]] = claimed[stays]
    free = np.setdiff1d(np.arange(len(parents)), slots, assume_unique=False)
    slots[slots < 0] = free
    return slots


def _copy(caches: torch.Tensor, source: np.ndarray, target: np.ndarray, length: int) -> None:
    """Copy `length` positions of slots that moved, layer by layer to keep the intermediate small."""
    moved = source != target
    if not moved.any():
        return
    start, end = (torch.from_numpy(index[moved]).to(caches.device) for index in (source, target))
    for layer in caches:
        layer[:, end, :, :length] = layer[:, start, :, :length]


def crop_queries(crop: np.ndarray, slots: np.ndarray, count: int, device: torch.device) -> CropQueries:
    """The pairs in their slots, grouped by crop, for the range of crops that occur."""
    first, order = int(crop.min()), np.argsort(crop, kind="stable")
    per_crop = np.bincount(crop - first)
    width = round_up(int(per_crop.max()), QUERIES)
    column = np.arange(len(crop)) - np.repeat(np.cumsum(per_crop) - per_crop, per_crop)
    rows = np.zeros((len(per_crop), width), np.int64)
    rows[crop[order] - first, column] = slots[order]
    flat = np.zeros(count, np.int64)
    flat[slots[order]] = (crop[order] - first) * width + column
    return CropQueries(first, torch.from_numpy(rows).to(device), torch.from_numpy(flat).to(device))
