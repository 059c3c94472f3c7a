"""Splits stay put under growth; colliding ids are resolved in plan order; words as REFER has them."""

from __future__ import annotations

import pytest

from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export.splits import ImageIds, Splits, assign, parse
from pseudoris_cli.storage.copies import copies, count_copies


def test_fractions_are_met_and_depend_on_the_key_alone():
    fractions = parse("train=.8, val=.1 ,testA=0.1")
    placed = [assign(f"images/{n}.jpg", fractions) for n in range(20000)]
    for name, fraction in fractions.items():
        assert abs(placed.count(name) / 20000 - fraction) < 0.01
    assert placed == [assign(f"images/{n}.jpg", fractions) for n in range(20000)]
    assert {assign(str(n), parse("train=1")) for n in range(100)} == {"train"}


@pytest.mark.parametrize(
    "text", ["", "train", "train=x", "train=.5", "train=nan", "train=2,val=-1", "dev=1", "train=.5,train=.5"]
)
def test_wrong_splits_are_named(text):
    with pytest.raises(UsageError, match="--split"):
        parse(text)


def test_every_split_of_refer_may_be_named():
    names = ("train", "val", "test", "testA", "testB", "testC")
    assert list(parse(",".join(f"{name}={1 / 6}" for name in names))) == list(names)


def _resolved(plan):
    ids = ImageIds()
    return [ids.take(key, wanted) for key, wanted in plan]


def test_colliding_ids_are_resolved_in_plan_order():
    plan = [("a", 5), ("b", 5), ("c", 0), ("d", -3), ("e", 5), ("f", 6)]
    ids = _resolved(plan)
    assert ids[0] == 5
    assert ids[5] == 6
    assert len(set(ids)) == 6
    assert all(0 < i < 2**52 for i in ids)
    assert _resolved([*plan, ("g", ids[1]), ("h", 6)])[:6] == ids


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        ("The car in blue, right.", "the car in blue right"),
        ("Café-blue box “right” naïve 中文", "café-blue box right naïve 中文"),
        ("a  man’s t-shirt ", "a man's t-shirt"),
        ("a 1.5 litre bottle.", "a 1.5 litre bottle"),
        ("left.right", "left right"),
        ("?! ...", "?! ..."),
    ],
)
def test_words(raw, sent):
    assert clean(raw) == (sent, sent.split())


def test_an_image_whose_first_hash_is_taken_too_gets_the_next():
    def ids_after(*wanted):
        ids = ImageIds()
        for number, one in enumerate(wanted):
            ids.take(f"other {number}", one)
        return ids

    first = ids_after(5).take("key", 5)
    second = ids_after(5, first).take("key", 5)
    third = ids_after(5, first, second).take("key", 5)
    assert len({5, first, second, third}) == 4
    assert min(first, second, third) > 0
    assert max(first, second, third) < 2**52


def test_files_of_one_image_are_in_one_split(tmp_path):
    groups = {f"copy/{n}.jpg": f"{n}.jpg" for n in range(500)} | {f"{n}.jpg": f"{n}.jpg" for n in range(500)}
    chosen = Splits("train=.5,val=.5")
    apart = sum(chosen.of(key) != chosen.of(first) for key, first in groups.items())
    assert apart > 150, "by their keys they would come apart"
    chosen.keep_together(groups)
    assert all(
        chosen.of(key) == chosen.of(first) == assign(first, parse("train=.5,val=.5")) for key, first in groups.items()
    )
    (tmp_path / "val.txt").write_text("copy/7.jpg\n8.jpg\n")
    listed = Splits(f"val={tmp_path / 'val.txt'},train=*")
    listed.keep_together(groups)
    assert [listed.of(key) for key in ("7.jpg", "copy/7.jpg", "8.jpg", "copy/8.jpg", "9.jpg")] == ["val"] * 4 + [
        "train"
    ]


def test_copies_are_known_by_their_bytes(tmp_path):
    from PIL import Image
    from work_maker import WorkMaker

    maker = WorkMaker(tmp_path, 6, part_size=2)
    Image.open(maker.images / "000000.png").save(maker.images / "000003.png")
    assert (maker.images / "000000.png").read_bytes() == (maker.images / "000003.png").read_bytes()
    masks = maker.masks().manifest()
    assert copies(masks) == {"000000.png": "000000.png", "000003.png": "000000.png"}
    assert count_copies(masks) == 1
