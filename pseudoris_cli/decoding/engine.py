"""All captions of the crops of several images: cut into batches that fit in memory, decoded, and put back in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pseudoris_cli import watching
from pseudoris_cli.decoding.beam import search_captions
from pseudoris_cli.decoding.device_beams import search_on_device
from pseudoris_cli.decoding.device_sampling import DeviceSampler, sample_on_device
from pseudoris_cli.decoding.distinctive import ContrastGroup, ContrastSet, SampleRow, sample_captions
from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.network import CaptionNetwork, CrossKV
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.decoding.sampling import draw
from pseudoris_cli.errors import is_out_of_memory
from pseudoris_cli.halving import release_memory


@dataclass(frozen=True, slots=True)
class CropGroup:
    """The M crops of one image and crop kind.

    `image_tokens` [M, L, width]; `similarity` float32 [M, M], cosines of their latents; `uniforms` float64
    [M, samplers, max_length], the random numbers in [0, 1) of the samplers.
    """

    image_tokens: torch.Tensor
    similarity: np.ndarray
    uniforms: np.ndarray

    @property
    def size(self) -> int:
        return len(self.similarity)


class Decoder:
    """Beam search and distinctive sampling of crop groups, in memory bounded by `row_chunk` (prefix, crop) pairs.

    Groups that fit are decoded together; a larger group is cut into chunks of rows that are decoded one after the other.
    When the device runs out of memory, the batch is decoded again with half the chunk size; `halvings` counts how often. Cutting
    changes shapes and so may change the last digits of the logits, and a token that hangs on them.
    """

    def __init__(
        self,
        network: CaptionNetwork,
        rules: DecodingRules,
        beams: int,
        row_chunk: int,
        form: Literal["host", "device"] = "host",
        graphs: bool = False,
    ) -> None:
        """`form`: where tokens are chosen, see `distinctive`, `beam` and `device_sampling`, `device_beams`; `graphs` as there."""
        self.network, self.rules, self.beams, self.row_chunk = network, rules, beams, row_chunk
        self.form, self.graphs = form, graphs
        self.halvings = 0

    def decode(self, groups: Sequence[CropGroup]) -> list[list[list[Generated]]]:
        """For each group and crop its captions: that of beam search first (where beams > 0), then one per sampler.

        Raises what reported the shortage where not even one row fits (errors.is_out_of_memory).
        """
        return self._decode(groups, self.row_chunk)

    def _decode(self, groups: Sequence[CropGroup], chunk: int) -> list[list[list[Generated]]]:
        found: list[list[list[Generated]]] = []
        batches = list(self._batches(groups, chunk))
        for number, batch in enumerate(batches):
            try:
                with watching.span(number / len(batches), (number + 1) / len(batches)):
                    found += self._decode_batch(batch, chunk)
                continue
            except (RuntimeError, MemoryError) as error:
                if chunk == 1 or not is_out_of_memory(error):
                    raise
            self.halvings += 1
            release_memory()
            found += self._decode(batch, chunk // 2)
        return found

    def _pairs(self, group: CropGroup) -> int:
        """Crops that each sampled row of a group is decoded with."""
        return group.size if self.rules.contrasts(group.size) else 1

    def _batches(self, groups: Sequence[CropGroup], chunk: int) -> Iterator[list[CropGroup]]:
        """Consecutive groups whose pairs fit in one chunk together; at least one group."""
        batch: list[CropGroup] = []
        pairs = 0
        for group in groups:
            needed = max(self.rules.samplers * self._pairs(group), self.beams) * group.size
            if batch and pairs + needed > chunk:
                yield batch
                batch, pairs = [], 0
            batch.append(group)
            pairs += needed
        if batch:
            yield batch

    def _decode_batch(self, groups: list[CropGroup], chunk: int) -> list[list[list[Generated]]]:
        cross_kv = self.network.precompute_cross_kv(torch.cat([group.image_tokens for group in groups]))
        first = np.cumsum([0, *(group.size for group in groups)])
        with watching.span(0, 0.3):
            beams = self._search(cross_kv, int(first[-1]), chunk) if self.beams else []
        rows = [
            SampleRow(number, crop, sampler)
            for number, group in enumerate(groups)
            for crop in range(group.size)
            for sampler in range(self.rules.samplers)
        ]
        contrast_groups = [
            ContrastGroup(int(start), group.similarity) for start, group in zip(first, groups, strict=False)
        ]
        with watching.span(0.3, 1):
            sampled = iter(self._sample(cross_kv, groups, contrast_groups, rows, chunk))
        return [
            [
                [
                    *beams[first[number] + crop : first[number] + crop + 1],
                    *(next(sampled) for _ in range(self.rules.samplers)),
                ]
                for crop in range(group.size)
            ]
            for number, group in enumerate(groups)
        ]

    def _search(self, cross_kv: CrossKV, crops: int, chunk: int) -> list[Generated]:
        found: list[Generated] = []
        for part in even_parts(crops, max(1, chunk // self.beams)):
            these = range(part.start, part.stop)
            if self.form == "device":
                found += search_on_device(self.network, cross_kv, these, self.beams, self.rules, self.graphs)
                continue
            found += search_captions(self.network, cross_kv, these, self.beams, self.rules)
        return found

    def _sample(
        self,
        cross_kv: CrossKV,
        groups: list[CropGroup],
        contrast_groups: list[ContrastGroup],
        rows: list[SampleRow],
        chunk: int,
    ) -> list[Generated]:
        found: list[Generated] = []
        widest = max(map(self._pairs, groups))
        for part in even_parts(len(rows), max(1, chunk // widest)):
            chunk_rows = rows[part]
            uniforms = np.stack([groups[row.group].uniforms[row.crop, row.sampler] for row in chunk_rows])

            def choose(kept: KeptTokens, alive: np.ndarray, length: int, uniforms: np.ndarray = uniforms) -> np.ndarray:
                return draw(kept, uniforms[alive, length - 1])

            with watching.span(part.start / len(rows), part.stop / len(rows)):
                if self.form == "device":
                    contrast = ContrastSet(contrast_groups, chunk_rows, self.rules)
                    samplers = np.array([row.sampler for row in chunk_rows])
                    made = DeviceSampler(self.network, cross_kv, contrast, samplers, self.rules, uniforms)
                    found += sample_on_device(made, self.graphs)
                    continue
                found += sample_captions(self.network, cross_kv, contrast_groups, chunk_rows, self.rules, choose)
        return found


def even_parts(count: int, most: int) -> Iterator[slice]:
    """Slices of range(count) with at most `most` items each, of nearly equal length."""
    parts = -(-count // most)
    for part in range(parts):
        yield slice(part * count // parts, (part + 1) * count // parts)
