"""Keys and values of prefixes, shared by every row that has the same prefix.

A *prefix* is a sequence of tokens; a *pair* is a prefix read beside one crop. Rows that agree share both; when they part,
their caches are copied; when a row ends, its place is taken by another. One mechanism thus serves the common first steps,
finished rows and the reordering of beams.
"""

from __future__ import annotations

import numpy as np
import torch

from pseudoris_cli.decoding.network import QUERIES, ROWS, CaptionNetwork, CropQueries, CrossMemory, round_up


class PrefixStates:
    """All prefixes of equal length that a chunk of rows stands at, and their hidden states beside the crops they need."""

    def __init__(self, network: CaptionNetwork, memory: CrossMemory, prefixes: int, pairs: int, length: int) -> None:
        """Room for so many prefixes and pairs and `length` tokens."""
        self.network, self.memory = network, memory
        self.crops = len(memory.layers[0])
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
        """Append one token to prefixes and read them beside crops.

        New prefix n is old prefix `parents[n]` (a slot; any number at the start) followed by `tokens[n]`; pair p is new
        prefix `pair_prefix[p]` beside crop `pair_crop[p]`, whose parent must be beside that crop already.
        Returns the slots of the new prefixes [N] (the `parents` of the next call) and hidden states float32 [P, width].
        """
        slots, pair_slots = self._place(parents, pair_prefix, pair_crop)
        device = self.network.device
        count, pair_count = round_up(len(slots), ROWS), round_up(len(pair_slots), ROWS)
        token_by_slot = np.zeros(count, np.int64)
        token_by_slot[slots] = tokens
        prefix_by_slot = np.zeros(pair_count, np.int64)
        prefix_by_slot[pair_slots] = slots[pair_prefix]
        text = self.network.read_token(
            torch.from_numpy(token_by_slot).to(device), self._text[:, :, :count], self.length
        )
        queries = _queries(pair_crop, pair_slots, pair_count, device)
        hidden = self.network.look(
            text[torch.from_numpy(prefix_by_slot).to(device)],
            self._pairs[:, :, :pair_count],
            self.length,
            self.memory,
            queries,
        )
        self.length += 1
        keys = slots[pair_prefix] * self.crops + pair_crop
        order = np.argsort(keys)
        self._pair_keys, self._pair_slots = keys[order], pair_slots[order]
        return slots, hidden[torch.from_numpy(pair_slots).to(device)]

    def _place(
        self, parents: np.ndarray, pair_prefix: np.ndarray, pair_crop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots for the new prefixes and pairs, their parents' caches in them."""
        if self.length == 0:
            return np.arange(len(parents)), np.arange(len(pair_prefix))
        at = np.searchsorted(self._pair_keys, parents[pair_prefix] * self.crops + pair_crop)
        pair_parents = self._pair_slots[at]
        slots, pair_slots = choose_slots(parents), choose_slots(pair_parents)
        _copy(self._text, parents, slots, self.length)
        _copy(self._pairs, pair_parents, pair_slots, self.length)
        return slots, pair_slots


def choose_slots(parents: np.ndarray) -> np.ndarray:
    """Slots 0..n-1 for n items, as many as possible in their parent's place so that little is copied."""
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


def _queries(crop: np.ndarray, slots: np.ndarray, count: int, device: torch.device) -> CropQueries:
    """The table of pairs by crop, for the crops from the first to the last that is asked."""
    first, order = int(crop.min()), np.argsort(crop, kind="stable")
    per_crop = np.bincount(crop - first)
    width = round_up(int(per_crop.max()), QUERIES)
    column = np.arange(len(crop)) - np.repeat(np.cumsum(per_crop) - per_crop, per_crop)
    rows = np.zeros((len(per_crop), width), np.int64)
    rows[crop[order] - first, column] = slots[order]
    place = np.zeros(count, np.int64)
    place[slots[order]] = (crop[order] - first) * width + column
    return CropQueries(first, torch.from_numpy(rows).to(device), torch.from_numpy(place).to(device))
