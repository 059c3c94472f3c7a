"""The pseudo-labels as a torch Dataset, read from an export or directly from a work directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from pseudoris_cli.codecs.image_decode import UndecodableImage, decode_rgb
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import read_formats, read_tables, splits
from pseudoris_cli.export.read_back import Referred, read_jsonl, read_refer
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.sources import refer
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.base import FileReader, Source
from pseudoris_cli.storage.copies import copies
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.rows import kept_rows, masks_by_image
from pseudoris_cli.storage.workspace import Workspace

Transforms = Callable[[torch.Tensor, torch.Tensor, str], tuple[torch.Tensor, torch.Tensor, str]]
IMAGE_FOLDERS = ("images/train2014", "images/saiapr_tc-12", "images", "datasets/images/train2014")


class Sample(TypedDict):
    """One item: image uint8 [3, H, W], RGB and upright; mask bool [H, W]; and an expression for the mask."""

    image: torch.Tensor
    mask: torch.Tensor
    caption: str
    image_id: int
    ref_id: int


class Batch(TypedDict):
    """What `collate` makes of B items: images [B, C, H, W] and masks [B, H, W] of the largest height and width among them.

    `size` int64 [B, 2] holds the (height, width) of each image before it was padded.
    """

    image: torch.Tensor
    mask: torch.Tensor
    size: torch.Tensor
    caption: list[str]
    image_id: torch.Tensor
    ref_id: torch.Tensor


def collate(items: Sequence[Sample]) -> Batch:
    """Items of any sizes as one batch, for `DataLoader(collate_fn=collate)`: padded with zeros to the right and below.

    What a transform made of image and mask is batched the same way: [C, H, W] and [H, W] of one size, in any type.
    """
    sizes = [(int(item["image"].shape[-2]), int(item["image"].shape[-1])) for item in items]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)

    def padded(tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor.new_zeros((*tensor.shape[:-2], height, width))
        whole[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
        return whole

    return {
        "image": torch.stack([padded(item["image"]) for item in items]),
        "mask": torch.stack([padded(item["mask"]) for item in items]),
        "size": torch.tensor(sizes),
        "caption": [item["caption"] for item in items],
        "image_id": torch.tensor([item["image_id"] for item in items]),
        "ref_id": torch.tensor([item["ref_id"] for item in items]),
    }


class PseudoRISDataset(Dataset[Sample]):
    """Image, mask and expression triples for training a referring segmentation model.

    `root` is an export (`jsonl`, `refcoco` or any other REFER data set, `grefcoco`, `coco`, `sa-co`, `sa2va`, `webdataset`,
    `hf`, `etris`, `reference-csv`; `swift` and `tao` have no masks) or a work directory, of which the kept captions of the last
    filter run are taken. An expression for several objects has the union of their masks, one for none an empty mask. Sentences
    of `etris` are cleaned; of `reference-csv` they are those that its trainer draws from. With `per="sentence"` every
    expression is an item; with `per="mask"` every mask is one, and each access draws one of its expressions with torch's
    generator, as ETRIS does.

    `transforms(image, mask, caption)` is applied to every item. `image_root` is the folder of the image files, by default the
    export's own (`--images copy` or `link`). A work directory has no splits of its own; `shares` (as `--split`) makes
    the same ones as an export with it. For a REFER data set that is split in several ways, pass the file
    `refs(<split_by>).p` as `root`. Raises UsageError where there is nothing to read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        image_root: str | Path | None = None,
        per: Literal["sentence", "mask"] = "sentence",
        transforms: Transforms | None = None,
        shares: str = "train=1",
    ) -> None:
        root = Path(root).expanduser()
        _check_root(root)
        self.transforms = transforms
        self._reader: Source | FileReader | read_formats.TarMembers | read_tables.TableRows
        if (root / "source.json").is_file():
            workspace = Workspace(root)
            self._reader = sources.source_of(workspace)
            records = _of_work_directory(workspace, split, splits.Splits(shares))
        elif not _is_read_back(root, split) and read_formats.find(root, split):
            inside = None if image_root else read_formats.pictures_inside(root, split)
            files = FileReader(root if inside else Path(image_root) if image_root else _image_folder(root))
            self._reader = inside or files
            records = read_formats.read(root, split, files.path)
        else:
            records = _of_export(root, split)
            self._reader = FileReader(Path(image_root) if image_root else _image_folder(root))
        self._masks = _PackedRecords(records)
        if not len(self._masks):
            raise UsageError(f"{root} has no masks in split {split!r}")
        counts = self._masks.captions if per == "sentence" else np.ones(len(self._masks), np.int64)
        self._ends = np.cumsum(counts)
        self._per = per

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        mask_index = int(np.searchsorted(self._ends, index, side="right"))
        item = self._masks[mask_index]
        number = index - int(self._ends[mask_index])  # counted from the last caption of the mask, so negative
        if self._per == "mask":
            number = int(torch.randint(len(item.captions), ()))
        pixels = self._pixels(item)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
        mask, caption = torch.from_numpy(decode_rle(item.rle)), item.captions[number]
        if self.transforms is not None:
            image, mask, caption = self.transforms(image, mask, caption)
        return {"image": image, "mask": mask, "caption": caption, "image_id": item.image_id, "ref_id": item.ref_id}

    def _pixels(self, item: Referred) -> np.ndarray:
        """The image, uint8 [H, W, 3] RGB; of the size of its masks, whatever limit the masks stage had."""
        height, width = item.rle.height, item.rle.width
        try:
            pixels = decode_rgb(self._reader.read(item.image_key), height * width)
        except UndecodableImage as error:
            raise UsageError(
                f"{item.image_key} cannot be used: {error}; restore the image that its masks were made for"
            ) from error
        if pixels.shape[:2] != (height, width):
            raise UsageError(
                f"{item.image_key} is not the image that its masks were made for: its size differs. Restore the image, or "
                "make its masks again"
            )
        return pixels


class _PackedRecords:
    """Records in one buffer of bytes: small, and the DataLoader's forked workers share it instead of copying every object."""

    def __init__(self, records: Iterable[Referred]) -> None:
        buffer, ends, captions = bytearray(), [0], []
        for item in records:
            rle = item.rle
            fields = [item.image_key, item.image_id, item.ref_id, rle.height, rle.width, rle.counts, item.captions]
            buffer += json.dumps(fields, ensure_ascii=False).encode()
            ends.append(len(buffer))
            captions.append(len(item.captions))
        self._buffer = np.frombuffer(buffer, np.uint8)
        self._ends = np.array(ends, np.int64)
        self.captions = np.array(captions, np.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Referred:
        text = self._buffer[self._ends[index] : self._ends[index + 1]].tobytes()
        key, image_id, ref_id, height, width, counts, captions = json.loads(text)
        return Referred(key, image_id, ref_id, Rle(height, width, counts), tuple(captions))


def _check_root(root: Path) -> None:
    """UsageError if there is nothing at `root`, or nothing in it."""
    if not root.exists():
        raise UsageError(
            f"there is no {root.absolute()}; give a work directory, a jsonl or refcoco export, or a REFER root"
        )
    if root.is_dir() and next(root.iterdir(), None) is None:
        raise UsageError(
            f"{root} is an empty folder; give a work directory, a jsonl or refcoco export, or a REFER root"
        )


def _is_read_back(root: Path, split: str) -> bool:
    """Whether `root` has a jsonl file of the split or a REFER data set, which come first."""
    return (root / f"{split}.jsonl").is_file() or (root.is_dir() and bool(refer.dataset_folders(root)))


def _of_export(root: Path, split: str) -> Iterator[Referred]:
    lines = root if root.suffix == ".jsonl" else root / f"{split}.jsonl"
    if lines.is_file():
        return read_jsonl(lines)
    if not (root.suffix == ".p" and root.is_file()) and not (root.is_dir() and refer.dataset_folders(root)):
        raise UsageError(f"{root} is neither a work directory nor a jsonl or refcoco export with a split {split!r}")
    source = refer.open_source(root, {"split": split}, root)
    return read_refer(source.dataset, source.split_by, split)


def _image_folder(root: Path) -> Path:
    start = root if root.is_dir() else root.parent
    for folder in (folder / name for name in IMAGE_FOLDERS for folder in (start, start.parent)):
        if folder.is_dir():
            return folder
    raise UsageError(f"{root} has no image files. Export again with --images copy or link, or pass image_root")


def _of_work_directory(workspace: Workspace, split: str, chosen: splits.Splits) -> Iterator[Referred]:
    """The kept captions of the last filter run, best first; parts that no longer fit together are left out."""
    chain = workspace.chain(workspace.latest("filter"))
    lineage = Lineage({stage: artifact.manifest() for stage, artifact in chain.items()})
    plan = workspace.plan(chain["filter"].plan_name)
    if chosen.several:
        chosen.keep_together(copies(lineage.manifests["masks"]))
    ref_id = 0
    for part in range(len(plan)):
        entries = {stage: lineage.entry(stage, part) for stage in ("masks", "filter")}
        if (filtered := entries["filter"]) is None or (masked := entries["masks"]) is None:
            continue
        masks = masks_by_image(read_part(lineage.manifests["masks"].path_of(masked)))
        ids = {image.key: image.image_id for image in plan.images(part)}
        captions: dict[tuple[str, int], list[str]] = {}
        for row in kept_rows(read_part(lineage.manifests["filter"].path_of(filtered))):
            captions.setdefault((row.image_key, row.mask_id), []).append(row.caption)
        for (key, mask_id), texts in captions.items():
            ref_id += 1
            if chosen.of(key) == split:
                rle = next(mask.rle for mask in masks[key] if mask.mask_id == mask_id)
                yield Referred(key, ids[key], ref_id, rle, tuple(texts))
