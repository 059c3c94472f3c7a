"""Tables of captions that somebody else wrote: Parquet, JSON lines, a JSON list, or CSV with commas, tabs or semicolons.

A row is an image, a mask and one or several texts. A row that cannot be used is counted by its reason and costs no other row.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_key", "file_name", "filename", "image_path", "path"),
    "mask": ("mask", "mask_id"),
    "text": ("text", "texts", "caption", "captions", "sentence", "sentences", "expression"),
    "crop": ("crop", "kind"),
    "sampler": ("sampler", "source"),
    "logprob": ("logprob",),
}
"""What a column may be called; the first that a table has is taken."""
ONLY_MASK = -1
"""Stands for a mask that is left out: the image's only one."""
_CHUNK = 50_000
_DELIMITERS = ",\t;"
_MOST_DIGITS = 9


class BadTable(ValueError):
    """The file is no table of captions."""


@dataclass
class CaptionTable:
    """Rows sorted by image, those of an image in the order of the file. Text is kept by Arrow, which is compact."""

    names: list[str]
    """The images that the table names."""
    offsets: np.ndarray
    """int64 [images + 1]: the rows of image n are offsets[n] to offsets[n + 1]."""
    masks: np.ndarray
    """int32 [rows]; ONLY_MASK where the table names none."""
    texts: pa.ChunkedArray
    labels: np.ndarray
    """int32 [rows]: index into `label_names`."""
    label_names: list[tuple[str, str]]
    """(crop, sampler); '' where the table says nothing."""
    logprobs: np.ndarray
    """float32 [rows]; 0 where the table says nothing."""
    bad: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by reason."""
    first_bad: dict[str, str] = field(default_factory=dict)
    """Of each reason where it was met first: "row 7"."""

    def __len__(self) -> int:
        return len(self.masks)


def read_table(path: Path) -> CaptionTable:
    """Read a table. Raises BadTable for what is none or has no usable row, OSError where the file cannot be read."""
    builder = _Builder()
    for number, row in _rows(path):
        builder.add(number, row)
    if not builder.count:
        reasons = ", ".join(f"{count:,} with {reason}" for reason, count in builder.bad.items())
        raise BadTable(f"it has no usable row ({reasons or 'it is empty'})")
    return builder.table()


class _Builder:
    """Gathers checked rows in chunks of Arrow text."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.labels: dict[tuple[str, str], int] = {}
        self.columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
        self.texts: list[pa.Array] = []
        self.pending: list[tuple[int, int, int, float, str]] = []
        self.bad: Counter[str] = Counter()
        self.first_bad: dict[str, str] = {}
        self.count = 0

    def add(self, number: int, row: Mapping[str, Any] | str) -> None:
        """Add a row, the n-th of the file; a text instead of a row is the reason why there is none."""
        if isinstance(row, str):
            return self._reject(row, number)
        image, texts, mask = row.get("image"), _texts(row.get("text")), _mask(row.get("mask"))
        if not all(_is_text(value) for value in row.values() if isinstance(value, str)):
            return self._reject("characters that are no UTF-8", number)
        if not isinstance(image, str) or not image.strip():
            return self._reject("no image", number)
        if mask is None:
            return self._reject("a mask that is no number", number)
        if not texts:
            return self._reject("no text", number)
        code = self.codes.setdefault(image.strip().replace("\\", "/").removeprefix("./"), len(self.codes))
        label = self.labels.setdefault((_label(row.get("crop")), _label(row.get("sampler"))), len(self.labels))
        self.pending += [(code, mask, label, _number(row.get("logprob")), text) for text in texts]
        self.count += len(texts)
        if len(self.pending) >= _CHUNK:
            self._flush()
        return None

    def _reject(self, reason: str, number: int) -> None:
        self.bad[reason] += 1
        self.first_bad.setdefault(reason, f"row {number:,}")

    def _flush(self) -> None:
        *numbers, texts = zip(*self.pending, strict=True)
        for chunks, values, kind in zip(self.columns, numbers, (np.int64, np.int32, np.int32, np.float32), strict=True):
            chunks.append(np.array(values, kind))
        self.texts.append(pa.array(texts, pa.large_string()))
        self.pending = []

    def table(self) -> CaptionTable:
        """All rows, by image."""
        if self.pending:
            self._flush()
        codes, masks, labels, logprobs = (np.concatenate(chunks) for chunks in self.columns)
        order = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(self.codes)))])
        texts = pa.chunked_array(self.texts).take(pa.array(order)).combine_chunks()
        return CaptionTable(
            names=list(self.codes),
            offsets=offsets.astype(np.int64),
            masks=masks[order],
            texts=texts,
            labels=labels[order],
            label_names=list(self.labels),
            logprobs=logprobs[order],
            bad=self.bad,
            first_bad=self.first_bad,
        )


# --- values ---------------------------------------------------------------------------------------------------------


def _texts(value: Any) -> list[str]:
    """The texts of a row, white space evened out; empty ones and what is no text are left out."""
    values = value if isinstance(value, list | tuple) else [value]
    return [clean for text in values if isinstance(text, str) and _is_text(text) and (clean := " ".join(text.split()))]


def _mask(value: Any) -> int | None:
    """The number of a mask, ONLY_MASK where none is given, None for what is no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ONLY_MASK
    if isinstance(value, float) and math.isnan(value):
        return ONLY_MASK
    if isinstance(value, str):
        digits = value.strip().removesuffix(".0")
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**_MOST_DIGITS:
        return None
    return value


def _label(value: Any) -> str:
    return " ".join(value.split())[:100] if isinstance(value, str) else ""


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) and abs(number) < 1e30 else 0.0


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON can spell halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


# --- files ----------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(number from 1, row under our names) of every row; a text where a row cannot be read."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PAR1"):
        yield from enumerate(_parquet(path), 1)
        return
    with path.open(encoding=_encoding(head), errors="surrogateescape", newline="") as text:
        first = text.read(4096).lstrip("\ufeff \t\r\n")[:1]
        text.seek(0)
        if first == "[":
            yield from enumerate(_json_list(text), 1)
        elif first == "{":
            yield from _json_lines(text)
        else:
            yield from _csv(text)


def _encoding(head: bytes) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so, as Excel's "Unicode text" has it."""
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _chosen(names: Iterable[Any]) -> dict[str, str]:
    """Our column -> that of the table, whatever its case. BadTable if one that is needed is missing."""
    have = {name.strip().lower(): name for name in names if isinstance(name, str)}
    chosen = {ours: have[n] for ours, theirs in COLUMNS.items() for n in reversed(theirs) if n in have}
    lacking = [ours for ours in ("image", "text") if ours not in chosen]
    if lacking:
        wanted = " and ".join(f"{ours!r} (or {', '.join(COLUMNS[ours][1:])})" for ours in lacking)
        raise BadTable(f"it has no column {wanted}; it has: {', '.join(map(repr, islice(have, 12))) or 'none'}")
    return chosen


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        file = pq.ParquetFile(path)
        chosen = _chosen(file.schema_arrow.names)
        for batch in file.iter_batches(_CHUNK, columns=list(chosen.values())):
            yield from batch.rename_columns([_ours(chosen, name) for name in batch.schema.names]).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadTable(f"it is damaged: {str(error).splitlines()[0]}") from error


def _ours(chosen: Mapping[str, str], theirs: str) -> str:
    return next(ours for ours, name in chosen.items() if name == theirs)


def _json_list(text: io.TextIOBase) -> Iterator[Mapping[str, Any] | str]:
    try:
        rows = json.load(text)
    except (ValueError, RecursionError) as error:
        raise BadTable(f"it begins as a JSON list and is none: {error}") from error
    chosen: dict[str, str] = {}
    for row in rows:
        yield _renamed(row, chosen)


def _json_lines(text: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    chosen: dict[str, str] = {}
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            yield number, _renamed(json.loads(line), chosen)
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadTable):
                raise
            yield number, "no JSON"


def _renamed(row: Any, chosen: dict[str, str]) -> Mapping[str, Any] | str:
    """A row under our names; the names are settled by the first row that is one."""
    if not isinstance(row, dict):
        return "no names and values"
    if not chosen:
        chosen |= _chosen(row)
        if "mask" not in chosen:
            chosen["mask"] = "mask"
    return {ours: row.get(theirs) for ours, theirs in chosen.items()}


def _csv(text: io.TextIOBase) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    header = text.readline()
    delimiter = max(_DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    chosen = _chosen(names)
    places = {ours: names.index(theirs) for ours, theirs in chosen.items()}
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + 1, f"a fault of the CSV ({error})"
            continue
        if not row:
            continue
        if len(row) != len(names):
            yield reader.line_num + 1, "more or fewer fields than the header"
            continue
        yield reader.line_num + 1, {ours: row[place] for ours, place in places.items()}
