"""`hf`: Parquet files and a dataset card, as `datasets.load_dataset(folder)` opens them.

    data/<split>-<00000>.parquet    one row per image: the image file and a list of its objects
    README.md                       the dataset card: models, settings, counts, licences

`--images copy` puts the image files' bytes into the rows, `link` their absolute paths, `none` leaves the column out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pseudoris_cli.export.base import (
    BySplit,
    ExportContext,
    ExportImage,
    ImageMode,
    Write,
    link_target,
    read_image_file,
)
from pseudoris_cli.export.image_row import image_row

_GROUP_BYTES = 1 << 25
_GROUP_ROWS = 1000
_SHARD_BYTES = 1 << 29

_OBJECT = {
    "ref_id": "int64",
    "ann_id": "int64",
    "mask_id": "int32",
    "category_id": "int32",
    "category": "string",
    "bbox": ["int32"],
    "area": "int64",
    "segmentation": {"size": ["int32"], "counts": "string"},
    "sentences": ["string"],
    "doc": ["float32"],
}
_ROW = {
    "image_id": "int64",
    "image_key": "string",
    "file_name": "string",
    "width": "int32",
    "height": "int32",
    "objects": [_OBJECT],
}


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write the Parquet files of every split, then the card."""
    with ExitStack() as stack:
        splits = BySplit(stack, lambda split: _Split(folder / "data", split, context.images, context.judged))

        def write(image: ExportImage) -> None:
            if image.objects:
                splits[image.split].append(*_row(image, context))

        yield write
    (folder / "README.md").write_text(_card(splits, context), encoding="utf-8", newline="\n")


@dataclass
class _Split:
    """The Parquet files of one split: row groups of bounded size, a new file after half a gigabyte."""

    folder: Path
    name: str
    images: ImageMode
    judged: bool
    counts: dict[str, int] = field(default_factory=lambda: {"images": 0, "masks": 0, "sentences": 0})

    def __enter__(self) -> _Split:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._schema = _schema(self.images, self.judged)
        self._writer: pq.ParquetWriter | None = None
        self._files = self._written = self._waiting = 0
        self._rows: list[dict[str, Any]] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def append(self, row: dict[str, Any], size: int) -> None:
        """One more row; `size` is about its bytes."""
        self._rows.append(row)
        self._waiting += size
        self.counts["images"] += 1
        self.counts["masks"] += len(row["objects"])
        self.counts["sentences"] += sum(len(obj["sentences"]) for obj in row["objects"])
        if self._waiting >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            path = self.folder / f"{self.name}-{self._files:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._files += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._waiting
        self._rows, self._waiting = [], 0
        if self._written >= _SHARD_BYTES:
            self._writer.close()
            self._writer, self._written = None, 0


def _row(image: ExportImage, context: ExportContext) -> tuple[dict[str, Any], int]:
    """The row of an image, and about how many bytes it has."""
    row = image_row(image, context.judged)
    size = sum(len(obj.mask.rle.counts) + 100 * len(obj.sentences) for obj in image.objects)
    if context.images == "link" and (original := link_target(image, context)):
        row["image"] = {"bytes": None, "path": str(original)}
    elif context.images != "none":
        data = read_image_file(image, context)
        row["image"] = {"bytes": data, "path": image.file_name}
        size += len(data)
    return row, size


def _schema(images: ImageMode, judged: bool) -> pa.Schema:
    """The Arrow schema, with the features under which `datasets` recognises `image` as an image."""
    row = _ROW | ({"objects": [_OBJECT | {"listener": ["float32"]}]} if judged else {})
    fields = [pa.field(name, _arrow(kind)) for name, kind in row.items()]
    features = {name: _feature(kind) for name, kind in row.items()}
    if images != "none":
        fields.insert(0, pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})))
        features = {"image": {"_type": "Image"}, **features}
    metadata = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": metadata})


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    if isinstance(kind, dict):
        return pa.struct({name: _arrow(inner) for name, inner in kind.items()})
    return pa.type_for_alias(kind)


def _feature(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_feature(kind[0])]
    if isinstance(kind, dict):
        return {name: _feature(inner) for name, inner in kind.items()}
    return {"dtype": kind, "_type": "Value"}


def _card(splits: dict[str, _Split], context: ExportContext) -> str:
    """The dataset card: YAML for the hub, then counts and provenance for people."""
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    header = {
        "pretty_name": f"{context.dataset} ({context.split_by})",
        "license": "other",
        "task_categories": ["image-segmentation"],
        "tags": ["referring-image-segmentation", "pseudo-labels", "pseudoris"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    counts = "\n".join(
        f"| {name} | {split.counts['images']} | {split.counts['masks']} | {split.counts['sentences']} |"
        for name, split in splits.items()
    )
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# {context.dataset} ({context.split_by})

Pseudo-labels for referring image segmentation, made by pseudoris with the method of Pseudo-RIS (ECCV 2024,
arXiv 2407.07412). No person checked the masks or the sentences.

| split | images | masks | sentences |
| --- | --- | --- | --- |
{counts}

Each row is an image with its `objects`. A mask is a COCO run-length encoding in the EXIF-upright frame,
`pycocotools.mask.decode(object["segmentation"])`; `bbox` is [x, y, width, height]; `sentences` are best first and `doc`
holds their distinctiveness (null where the image has one mask only).{_listener_words(context)}

## Licences

The pictures keep their own licences. The masks and sentences were made by these networks; what the licences of their
weights allow to be done with them is for you to judge.

{_weights_table(context.provenance.get("weights", []))}

## How it was made

```yaml
{yaml.safe_dump(_plain(context.provenance), sort_keys=True, allow_unicode=True)}```
"""


def _listener_words(context: ExportContext) -> str:
    """What the card says of the judge; nothing where there was none."""
    if not context.judged:
        return ""
    words = (
        " `listener` is the probability with which a listener who was shown every mask of the image picked this one for the "
        "sentence (null where it was not asked)."
    )
    warning = context.provenance.get("listener_warning")
    return words + (f"\n\n**Mind:** {warning}." if warning else "")


def _weights_table(rows: list[dict[str, str]]) -> str:
    columns = ("setting", "network", "weights", "licence", "remark")
    lines = ["used for", "network", "weights", "licence of the weights", "remark"], ["---"] * len(columns)
    table = [*lines, *([row[name].replace("|", "\\|") for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _plain(provenance: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(provenance)))
