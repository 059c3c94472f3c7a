"""Metadata made to harm, through every door of the real command: one message, nothing executed, read or written elsewhere.

What each reader makes of each kind of damage is in tests/sources, tests/codecs and tests/backends.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from invoking import Outcome, invoke, rows_of
from PIL import Image

from pseudoris_cli.codecs import pyarrow_serialize

pytestmark = pytest.mark.timeout(120)
SIZE = (8, 6)
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]


class Call:
    """Pickled: a call that leaves a trace."""

    def __reduce__(self):
        return Path.mkdir, (Path("executed"),)


YAML_CALL = "!!python/object/apply:os.mkdir [executed]"


@dataclass(frozen=True)
class Case:
    """A way in: `lay` writes files into a folder that has `photos/a.png` and returns arguments; what must come of them."""

    name: str
    lay: Callable[[Path], list[Any]]
    code: int
    says: str

    def __str__(self) -> str:
        return self.name


def images(name: str, text: str | bytes) -> Callable[[Path], list[Any]]:
    """A file given to --images, with honest masks."""

    def lay(folder: Path) -> list[Any]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        honest = own(mask([SQUARE]))(folder)[-4:]
        return ["masks", "--images", folder / name, "--image-root", folder / "photos", *honest]

    return lay


def refer(refs: Any, listed: Any) -> Callable[[Path], list[Any]]:
    """A REFER root given to --images."""

    def lay(folder: Path) -> list[Any]:
        root = folder / "refer" / "refcoco"
        root.mkdir(parents=True)
        (root / "refs(unc).p").write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, 2))
        (root / "instances.json").write_text(json.dumps({"images": listed}))
        return ["masks", "--images", folder / "refer", "--image-root", folder / "photos"]

    return lay


def database(values: dict[bytes, bytes]) -> Callable[[Path], list[Any]]:
    """An LMDB given to --images."""

    def lay(folder: Path) -> list[Any]:
        path = str(folder / "x.lmdb")
        with lmdb.open(path, subdir=False, map_size=1 << 22, lock=False) as made, made.begin(write=True) as out:
            for key, value in values.items():
                out.put(key, value)
        return ["masks", "--images", folder / "x.lmdb"]

    return lay


def own(annotation: dict[str, Any] | str, **image: Any) -> Callable[[Path], list[Any]]:
    """Own masks: one annotation of photos/a.png, or the text of the whole file."""

    def lay(folder: Path) -> list[Any]:
        listed = {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]} | image
        whole = {"images": [listed], "annotations": [annotation], "categories": [{"id": 1, "name": "dog"}]}
        (folder / "own.json").write_text(annotation if isinstance(annotation, str) else json.dumps(whole))
        masks = ("--set", "masks.proposals.backend=coco_masks", "--set", f"masks.proposals.path={folder / 'own.json'}")
        return ["masks", "--images", folder / "photos", *masks]

    return lay


def mask(segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation} | more


def config(text: str) -> Callable[[Path], list[Any]]:
    """A file given to --config."""

    def lay(folder: Path) -> list[Any]:
        (folder / "hostile.yaml").write_text(text)
        return ["masks", "--images", folder / "photos", "--config", folder / "hostile.yaml"]

    return lay


def assignment(text: str) -> Callable[[Path], list[Any]]:
    """A value given to --set."""
    return lambda folder: ["masks", "--images", folder / "photos", "--set", text]


def checkpoint(setting: str, **more: str) -> Callable[[Path], list[Any]]:
    """A pickled checkpoint that calls."""

    def lay(folder: Path) -> list[Any]:
        torch.save({"state_dict": {"a": Call()}}, folder / "evil.pt")
        sets = [
            f"{setting}={folder / 'evil.pt'}",
            *(f"{name.replace('__', '.')}={value}" for name, value in more.items()),
        ]
        flags = [flag for one in sets for flag in ("--set", one)]
        return ["masks", "--images", folder / "photos", "--config", "ROOT/configs/random.yaml", *flags]

    return lay


HONEST = pyarrow_serialize.encode([b"0"])
TRICKED = pyarrow_serialize.encode({"data": pickle.dumps(Call()), "_pytypX_": "global"}).replace(
    b"_pytypX_", b"_pytype_"
)
REF = {"image_id": 1, "split": "train"}
LONG = '[{"img_name": "a.png", "img_id": 1%s}]' % ("0" * 999)
ONE = '{"id": 1, "file_name": "a.png"}'
COCO = '{"images": [%s], "annotations": [], "categories": []}'
BOMB = "a: &a [x, x]\n" + "\n".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CASES = [
    Case("list, half a line of bytes", images("list.txt", b"a.png\n\xff\xfe\x00\n"), 2, "list.txt"),
    Case("list, nul in a name", images("list.txt", "a\0.png\n"), 2, "list.txt"),
    Case("annotations, above the root", images("anns/train.json", '[{"img_name": "../../etc/passwd"}]'), 2, "refusing to"),
    Case("annotations, nested too deep", images("anns/train.json", "[" * 100_000), 2, "train.json"),
    Case("annotations, id of a thousand digits", images("anns/train.json", LONG), 2, "id"),
    Case("annotations, endless id", images("anns/train.json", '[{"img_name": "a.png", "img_id": 1e999}]'), 2, "id"),
    Case("coco, above the root", images("c.json", COCO % '{"id": 1, "file_name": "../secret.png"}'), 2, "refusing to"),
    Case("coco, nul in a name", images("c.json", COCO % '{"id": 1, "file_name": "a\\u0000.png"}'), 2, "c.json"),
    Case("coco, half a character", images("c.json", COCO % '{"id": 1, "file_name": "\\ud800.png"}'), 2, "c.json"),
    Case("coco, id below 0", images("c.json", COCO % '{"id": -1, "file_name": "a.png"}'), 2, "id"),
    Case("coco, id NaN", images("c.json", COCO % '{"id": NaN, "file_name": "a.png"}'), 2, "id"),
    Case("coco, one id twice", images("c.json", COCO % (ONE + ', {"id": 1, "file_name": "b.png"}')), 2, "two files"),
    Case("coco, one name twice", images("c.json", COCO % (ONE + ', {"id": 2, "file_name": "a.png"}')), 2, "1 and 2"),
    Case("coco, no text", images("c.json", b"\xff\xfe\x00{"), 2, "c.json"),
    Case("refs, code", refer([Call()], []), 2, "refs(unc).p"),
    Case("refs, cut", refer(pickle.dumps([{"image_id": 1}], 2)[:-3], []), 2, "refs(unc).p"),
    Case("refs, above the root", refer([REF], [{"id": 1, "file_name": "../secret.png"}]), 2, "refusing to"),
    Case("lmdb, keys pickled", database({b"__keys__": pickle.dumps([Call()])}), 2, "__keys__"),
    Case("lmdb, record pickled", database({b"__keys__": HONEST, b"0": pickle.dumps(Call())}), 2, "record 0"),
    Case("lmdb, pickle within the format", database({b"__keys__": HONEST, b"0": TRICKED}), 2, "pickled object"),
    Case("own, code", own('{"images": !!python/object/apply:os.mkdir ["executed"]}'), 2, "own.json"),
    Case("own, rle of a billion pixels", own(mask({"size": [10**9, 10**9], "counts": [1]})), 4, "annotation 1"),
    Case("own, rle past its end", own(mask({"size": [6, 8], "counts": [10, 10**12]})), 4, "annotation 1"),
    Case("own, rle below 0", own(mask({"size": [6, 8], "counts": [-5, 53]})), 4, "annotation 1"),
    Case("own, rle no text", own(mask({"size": [6, 8], "counts": "\x00\x01~~~~"})), 4, "annotation 1"),
    Case("own, polygon NaN", own(mask([[float("nan")] * 8])), 4, "annotation 1"),
    Case("own, polygon far away", own(mask([[1e300, 1, 1e300, 1e300, 1, 1e300]])), 4, "annotation 1"),
    Case("own, score NaN", own(mask([SQUARE], score=float("nan"))), 4, "no finite number"),
    Case("own, box NaN is not read", own(mask([SQUARE], bbox=[float("nan")] * 4, area=float("inf"))), 0, ""),
    Case("own, image above the root", own(mask([SQUARE]), file_name="../photos/a.png"), 0, ""),
    Case("own, image of another size", own(mask([SQUARE]), width=10**9), 4, "upright image has 8x6"),
    Case("config, code", config(f"masks: {YAML_CALL}"), 2, "hostile.yaml"),
    Case("config, a name", config("masks: {sam: {checkpoint: !!python/name:os.system }}"), 2, "hostile.yaml"),
    Case("config, aliases", config(BOMB), 2, "hostile.yaml"),
    Case("config, deep", config("[" * 100_000), 2, "hostile.yaml"),
    Case("config, one key twice", config("masks: {max_pixels: 1}\nmasks: {max_pixels: 2}"), 2, "hostile.yaml"),
    Case("--set, code", assignment(f"masks.max_pixels={YAML_CALL}"), 2, "masks.max_pixels"),
    Case("sam checkpoint, code", checkpoint("masks.sam.checkpoint", masks__sam__model="vit_b"), 2, "evil.pt"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_executed_and_the_answer_is_defined(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((*SIZE[::-1], 3), 99, np.uint8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "secret.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    arguments = [str(one).replace("ROOT", str(repository)) for one in case.lay(tmp_path)]
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments, "--work", tmp_path / "work", "--device", "cpu")
    assert done.code == case.code, done
    check(case, done, tmp_path)
    made = {path for path in set(tmp_path.rglob("*")) - before if tmp_path / "work" not in (path, *path.parents)}
    assert not made


def check(case: Case, done: Outcome, folder: Path) -> None:
    """The message, and what is left."""
    assert "Traceback" not in done.stderr
    if case.code == 0:
        assert {row["image_key"] for row in rows_of(folder / "work", "masks")} <= {"a.png"}
    elif case.code == 4:
        assert case.says in invoke("status", "--work", folder / "work", "--failed").stdout
    else:
        assert case.says in done.stderr
        assert done.stdout == ""
        assert len(done.stderr) < 1500, "one message, not what the file holds"
