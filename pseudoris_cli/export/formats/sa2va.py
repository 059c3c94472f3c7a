"""`sa2va`: pictures with the polygons and the expression of each object, for Sa2VA's fine-tuning.

    <dataset>/annotations.json          the train split; other splits: annotations_<split>.json
    <dataset>/images                    leads to images/train2014, with --images

`mask[i]` are the polygons of what `text[i]` means; an object has its best sentence, with `--sentences all` each in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pseudoris_cli.export.base import BySplit, ExportContext, ExportImage, Write, image_folder, save_image_file
from pseudoris_cli.export.json_stream import JsonList

OPTIONS = ("sentences",)


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one list per split; images without a referred object are left out."""
    root, pictures = folder / context.dataset, folder / image_folder(context)
    with ExitStack() as stack:
        lists = BySplit(
            stack, lambda split: JsonList(root / f"annotations{'' if split == 'train' else f'_{split}'}.json")
        )

        def write(image: ExportImage) -> None:
            count = 1 if context.sentences == "best" else None
            pairs = [
                (context.polygons.of(image.image_key, obj.mask), sentence.caption)
                for obj in image.objects
                for sentence in obj.sentences[:count]
                if sentence.caption.strip()  # its reader looks at the last letter
            ]
            if pairs:
                masks, texts = zip(*pairs, strict=True)
                lists[image.split].append({"image": image.file_name, "mask": masks, "text": texts})
                save_image_file(image, context, pictures)

        yield write
    if pictures.is_dir() and root.is_dir():
        (root / "images").symlink_to(Path("..") / image_folder(context), target_is_directory=True)
