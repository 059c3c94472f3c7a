"""The masks of an image that pass the filters: gathered on the device, brought to the host by one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pseudoris_cli.networks.sam import run_lengths
from pseudoris_cli.networks.transfers import Download

COLUMNS = 6
"""Prompt, mask, predicted IoU and stability (the bits of a float32), first pixel, last pixel."""


@dataclass(frozen=True, slots=True)
class MaskRows:
    """M masks of a crop on the host: prompt [M] and mask [M] int64, predicted IoU [M] and stability [M] float32, edges."""

    prompt: np.ndarray
    mask: np.ndarray
    predicted_iou: np.ndarray
    stability: np.ndarray
    edges: list[np.ndarray]


class MaskTable:
    """The masks of one crop, block by block. On a CPU edges are found at once; elsewhere what they are made of is kept."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.count = pixels, 0
        self.rows: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.edges: list[np.ndarray] = []

    def add(self, prompt: Tensor, mask: Tensor, iou: Tensor, stability: Tensor, masks: Tensor) -> None:
        """M more masks: int64 [M] each, float32 [M] each, and their pixels, bool [M, pixels] column-major."""
        columns = [prompt, mask, _bits(iou), _bits(stability), masks[:, 0].long(), masks[:, -1].long()]
        self.rows.append(torch.stack(columns, 1))
        if masks.device.type == "cpu":
            self.edges += run_lengths.find_edges(masks)
        else:
            self.changes.append(run_lengths.changes_of(masks).add_(self.count * (self.pixels - 1)))
        self.count += len(masks)

    def append(self, other: MaskTable) -> None:
        """The masks of another table of the crop; its own changes are numbered anew."""
        self.rows += other.rows
        self.changes += [part.add_(self.count * (self.pixels - 1)) for part in other.changes]
        self.edges += other.edges
        self.count += other.count


class TablesUnderWay:
    """The tables of an image's crops on their way to the host: one transfer."""

    def __init__(self, tables: Sequence[MaskTable]) -> None:
        self.tables = tables
        parts = [part.flatten() for table in tables for part in (*table.rows, *table.changes)]
        self._sizes = [(table.count, sum(map(len, table.changes))) for table in tables]
        self._download = Download(torch.cat(parts)) if parts else None

    def read(self) -> list[MaskRows]:
        """The masks of each crop; waits until they are here."""
        values = self._download.read() if self._download else np.empty(0, np.int64)
        found, start = [], 0
        for table, (masks, changes) in zip(self.tables, self._sizes, strict=True):
            middle, end = start + masks * COLUMNS, start + masks * COLUMNS + changes
            prompt, mask, iou, stability, *ends = values[start:middle].reshape(masks, COLUMNS).T
            edges = table.edges or run_lengths.edges_of(values[middle:end], np.stack(ends, 1), table.pixels)
            found.append(MaskRows(prompt, mask, _number(iou), _number(stability), edges))
            start = end
        return found


def _bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32).long()


def _number(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.int32).view(np.float32)
