"""REFER's, ETRIS', the release's, pycocotools' and `datasets`' ways of reading, on our output, with the packages of their time.

The environments (pyarrow 11 is the last with `deserialize`) are made by uv and thrown away, in seconds. Where no package
registry can be reached the tests are skipped, with that reason.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from locations import SUPPORT
from PIL import Image

from pseudoris_cli.codecs.image_upright import portable
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ScoredMask

pytestmark = pytest.mark.timeout(180)
ORIGINALS = (
    "pyarrow==11.0.0", "numpy==1.26.4", "lmdb==1.4.1", "opencv-python-headless==4.11.0.86", "pandas==2.0.3",
    "pycocotools==2.0.8",
)  # fmt: skip
PERSON, DOG = (1, "person"), (18, "dog")
NAMES = ("unter ordner/hünd, 中文.jpg", 'it\'s "quoted".webp', "turned.png", "anim.gif", "scan.tif")
KINDS = {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG", ".gif": "GIF", ".tif": "TIFF"}
TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
STORED = {number: Image.Transpose[name] for number, name in enumerate(TURNS, 2)}
"""Orientation -> how an upright picture is stored with it. Five names and eight orientations: 40 pictures hold all pairs."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Makes an environment with some packages and gives its interpreter."""

    def make(*packages):
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            pytest.skip("uv is not here to make an environment with")
        folder = tmp_path_factory.mktemp("environment") / "e"
        install = [uv, "pip", "install", "-q", "--python", folder, *packages]
        for command in ([uv, "venv", "-q", "--python", "3.11", folder], install):
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=150)
            if done.returncode:
                pytest.skip(f"no environment with {packages[0]} can be made here: {done.stderr.strip()[-300:]}")
        return folder / "bin" / "python"

    return make


def _picture(number, height, width):
    """A file that shows a white block at the top left of a dark picture once it is turned as its orientation says."""
    image = Image.new("RGB", (width, height), (number, 40, 90))
    image.paste((255, 255, 255), (0, 0, 16, 16))
    kind = KINDS[Path(NAMES[number % len(NAMES)]).suffix]
    options = {}
    if kind != "GIF":
        orientation = 1 + number % 8
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
        image = image.transpose(STORED[orientation]) if orientation in STORED else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _images(stream_images):
    """40 pictures in four splits with people and dogs, the last two with one mask; a candidate without a score here and there."""
    shape = {}
    made = []
    for number, image in enumerate(stream_images(40)):
        name = f"{number:02d} {NAMES[number % len(NAMES)]}"
        shape[name] = (number, image.height, image.width)
        objects = tuple(replace(obj, category=(PERSON, DOG)[obj.ref_id % 2]) for obj in image.objects)
        scored = tuple(_undefined(one) if (number + one.mask.mask_id) % 3 == 0 else one for one in image.candidates)
        split = ("train", "val", "testA", "testB")[number % 4]
        image = replace(image, image_key=name, file_name=name, split=split, objects=objects, candidates=scored)
        made.append(image if number < 38 else _single(image))
    return made, lambda key: portable(_picture(*shape[key]))


def _undefined(scored):
    first, *others = scored.candidates
    return replace(scored, candidates=(replace(first, doc=None), *others))


def _single(image):
    candidates = tuple(replace(one, doc=None, uniqueness=None) for one in image.candidates[0].candidates)
    return replace(
        image, objects=image.objects[:1], candidates=(ScoredMask(mask=image.candidates[0].mask, candidates=candidates),)
    )


def _expected(images):
    """What the originals should find, as plain JSON."""
    refs, masks = [], []
    for image in images:
        for obj in image.objects:
            refs.append(
                {
                    "ref_id": obj.ref_id,
                    "split": image.split,
                    "category": list(obj.category),
                    "captions": [sentence.caption for sentence in obj.sentences],
                    **obj.mask.rle.to_coco(),
                }
            )
        single = len(image.candidates) == 1
        for seg_id, scored in enumerate(image.candidates):
            docs = [100 * c.correctness if single else 0.0 if c.doc is None else c.doc for c in scored.candidates]
            captions = [candidate.caption for candidate in scored.candidates]
            masks.append(
                {
                    "image": image.file_name,
                    "seg_id": seg_id,
                    "captions": captions,
                    "docs": docs,
                    **scored.mask.rle.to_coco(),
                }
            )
    return {"refs": refs, "masks": masks}


@pytest.fixture
def exported(stream_images, context, tmp_path):
    """An export in every format, and what should be found in it."""
    images, read_image = _images(stream_images)
    context = replace(context, images="copy", read_image=read_image)
    (tmp_path / "out").mkdir()
    base.write_formats(
        [base.load_format(name) for name in base.format_names()], iter(images), context, tmp_path / "out"
    )
    expected = _expected(images)
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    return tmp_path, expected


def _run(python, *arguments):
    command = list(map(str, (python, *arguments)))
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_originals_read_what_went_in(environment, exported):
    folder, expected = exported
    script = SUPPORT / "originals.py"
    seen = _run(environment(*ORIGINALS), script, folder / "out", folder / "expected.json")
    refs, masks = len(expected["refs"]), len(expected["masks"])
    assert seen == {"pyarrow": "11.0.0", "refer": refs, "etris": refs, "coco": refs, "release": masks, "one_mask": 2}
    assert refs > 100


def test_webdataset_and_datasets_stream_the_shards(environment, exported):
    """The package's own decoders, and `load_dataset("webdataset")`, which wants the same members for every key.

    Pillow turns no image by its EXIF by itself, and the package leaves it at that.
    """
    folder, expected = exported
    read = """
import json, sys
from glob import glob
import datasets, webdataset
from PIL import ImageOps
out = sys.argv[1]
rows = []
for path in sorted(glob(out + "/*-000000.tar")):
    for sample in webdataset.WebDataset(path, shardshuffle=False).decode("pil"):
        corner = ImageOps.exif_transpose(sample["jpg"]).convert("RGB").getpixel((4, 4))
        rows += [[one["ref_id"], one["segmentation"], one["sentences"], corner] for one in sample["json"]["objects"]]
files = {path.split("/")[-1].split("-")[0]: path for path in glob(out + "/*.tar")}
data = datasets.load_dataset("webdataset", data_files=files, cache_dir=sys.argv[2])
streamed = [
    [one["ref_id"], one["segmentation"], one["sentences"], row["jpg"].convert("RGB").getpixel((4, 4))]
    for part in data.values() for row in part for one in row["json"]["objects"]
]
print(json.dumps([rows, streamed]))
"""
    python = environment("datasets==5.2.0", "pillow", "webdataset==1.0.2")
    for rows in _run(python, "-c", read, folder / "out", folder / "cache"):
        assert {row[0] for row in rows} == {ref["ref_id"] for ref in expected["refs"]}
        wanted = {ref["ref_id"]: ref for ref in expected["refs"]}
        for ref_id, segmentation, sentences, corner in rows:
            ref = wanted[ref_id]
            assert segmentation == {"size": ref["size"], "counts": ref["counts"]}
            assert sentences == ref["captions"]
            assert min(corner) > 200


def test_datasets_opens_the_hf_export(environment, exported):
    """The folder as a whole, as a trainer does: splits by the card, pictures decoded and upright, lists and nulls."""
    folder, expected = exported
    read = """
import json, sys
import datasets
data = datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])
rows = []
for split, part in data.items():
    for row in part:
        corner = row["image"].convert("RGB").getpixel((4, 4))
        for one in row["objects"]:
            rows.append([one["ref_id"], split, row["image"].size, corner, one["segmentation"], one["sentences"], one["category"]])
objects = data["train"].features["objects"]
inner = getattr(objects, "feature", objects)
assert type(data["train"].features["image"]).__name__ == "Image", data["train"].features
assert {"bbox", "segmentation", "sentences", "doc"} <= set(inner), objects
assert inner["segmentation"]["counts"].dtype == "string", inner
print(json.dumps(rows))
"""
    rows = _run(environment("datasets==5.2.0", "pillow"), "-c", read, folder / "out", folder / "cache")
    wanted = {ref["ref_id"]: ref for ref in expected["refs"]}
    assert len(rows) == len(wanted)
    for ref_id, split, size, corner, segmentation, sentences, category in rows:
        ref = wanted[ref_id]
        assert (split, sentences, category) == (ref["split"], ref["captions"], ref["category"][1])
        assert segmentation == {"size": ref["size"], "counts": ref["counts"]}
        assert size == ref["size"][::-1]
        assert min(corner) > 200
