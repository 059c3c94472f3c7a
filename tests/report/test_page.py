"""The page as a file: self-contained, safe against what captions contain, complete for every stage."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from work_maker import SCRIPT, WorkMaker

from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.writer import write_report

SCORES = ("doc", "uniqueness", "correctness")
Maker = Callable[..., WorkMaker]


class PageReader(HTMLParser):
    """Collects scripts, links and text as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.policy = ""
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self._inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((known, ""))
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"] or ""
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            known, text = self.scripts[-1]
            self.scripts[-1] = known, text + data
        elif self._inside is None:
            self.text.append(data)

    @property
    def data(self) -> list[dict[str, Any]]:
        """All embedded JSON: a block for each card, then the page's."""
        return [json.loads(text) for known, text in self.scripts if known.get("type") == "application/json"]


def page_of(made: WorkMaker, choice: ImageChoice | None = None) -> PageReader:
    path = write_report(made.workspace, made.workspace.root / "report.html", choice or ImageChoice())
    return PageReader(path.read_text(encoding="utf-8"))


def rows_of(page: PageReader) -> list[dict[str, Any]]:
    *cards, shared = page.data
    names = [column["id"] for column in shared["columns"]]
    return [dict(zip(names, row, strict=True)) for card in cards for row in card["rows"]]


def test_a_hostile_caption_is_data_and_nothing_else(maker: Maker) -> None:
    made = maker(2)
    made.all(texts=("</script><script>alert(1)</script>", SCRIPT, "<!-- --> \u2028 &amp; 🐕"))
    page = page_of(made)
    assert len(page.scripts) == 2 + 1 + 1  # two cards, the page's data, the program
    captions = {row["caption"] for row in rows_of(page)}
    assert {"</script><script>alert(1)</script>", SCRIPT, "<!-- --> \u2028 &amp; 🐕"} <= captions
    assert not any("alert(" in text for text in page.text)


def test_a_hostile_image_name_is_text(maker: Maker, tmp_path: Path) -> None:
    made = maker(2)
    made.workspace.set_source({**(made.workspace.source() or {}), "root": str(tmp_path / "<img src=x onerror=a()>")})
    made.masks()
    page = page_of(made)
    assert any("<img src=x onerror=a()>" in text for text in page.text)
    assert not [address for address in page.addresses if not address.startswith(("data:", "#"))]


def test_the_page_needs_nothing_from_outside_and_runs_only_its_own_program(maker: Maker) -> None:
    made = maker(2)
    made.all()
    page = page_of(made)
    ((_, program),) = [script for script in page.scripts if "type" not in script[0]]
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'")
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?://|innerHTML|eval\(", program.replace("never innerHTML", ""))


def test_rows_carry_scores_verdicts_and_origin(maker: Maker) -> None:
    made = maker(2)
    made.all()
    page = page_of(made)
    shared = page.data[-1]
    terms = shared["terms"]
    rows = rows_of(page)
    assert len(rows) == 44 * sum(len(scene.masks) for scene in made.scenes.values())
    for row in rows:
        verdict = terms[row["verdict"]]
        assert (row["doc"] > 1 and verdict == "") or verdict in ("duplicate", "doc<=1")
        assert terms[row["crop"]] in ("masked", "crop_1.0", "crop_1.1", "crop_1.2")
    assert shared["reasons"]["doc<=1"][0] == "DoC ≤ 1"
    for card in page.data[:-1]:
        masks = [row[0] for row in card["rows"]]
        assert masks == sorted(masks)


@pytest.mark.parametrize(
    ("stages", "columns"),
    [
        (1, ["mask", "fraction", "pixels", "predicted_iou", "stability", "detector", "match"]),
        (2, ["mask", "caption", "duplicates", "candidate", "crop", "sampler", "logprob"]),
        (
            3,
            ["mask", "caption", "duplicates", "candidate", *SCORES, "flags", "noun", "crop", "sampler", "logprob"],
        ),
    ],
)
def test_the_columns_are_those_of_the_stage(maker: Maker, stages: int, columns: list[str]) -> None:
    made = maker(2)
    artifact = made.masks()
    for step in (made.captions, made.scores)[: stages - 1]:
        artifact = step(artifact)
    page = page_of(made)
    assert [column["id"] for column in page.data[-1]["columns"]] == columns
    assert rows_of(page)
    text = " ".join(page.text)
    assert f"This report shows the {('masks', 'captions', 'scores')[stages - 1]}" in text


def test_categories_are_shown_where_masks_have_them(maker: Maker) -> None:
    made = maker(2)
    masks = made.masks(categories={0: (17, "cat</script>")})
    page = page_of(made)
    terms = page.data[-1]["terms"]
    assert [column["id"] for column in page.data[-1]["columns"]][:2] == ["mask", "category"]
    named = {(row["mask"] == 0, terms[row["category"]]) for row in rows_of(page)}
    assert named == {(True, "cat</script>"), (False, "")}
    made.captions(masks)
    page = page_of(made)  # the table lists captions now, the buttons above it name the masks
    assert {(mask["id"] == 0, mask.get("category")) for mask in page.data[0]["masks"]} == {
        (True, "cat</script>"),
        (False, None),
    }


def test_a_vanished_image_is_shown_as_such(maker: Maker) -> None:
    made = maker(2)
    made.masks()
    (made.images / "000001.png").unlink()
    page = page_of(made)
    assert sum(address.startswith("data:image/jpeg") for address in page.addresses) == 1
    assert any("no image: the image is gone" in text for text in page.text)
    assert len(page.data[1]["masks"]) == len(made.scenes["000001.png"].masks)


def test_origin_names_versions_checkpoints_and_packages(maker: Maker) -> None:
    import numpy as np

    made = maker(2)
    made.all()
    text = " ".join(page_of(made).text)
    for stage in ("masks", "captions", "scores", "filter"):
        assert str(made.workspace.current(stage)) in text
    for expected in ("sam_vit_h", "clip_rn50", "2" * 64, "contrast_form", "literal", np.__version__):
        assert expected in text


def test_the_same_artifacts_make_the_same_page_and_a_small_one(maker: Maker) -> None:
    made = maker(3)
    made.all()
    out = made.workspace.root / "a" / "b.html"
    first = write_report(made.workspace, out, ImageChoice()).read_text()
    again = write_report(made.workspace, out, ImageChoice()).read_text()
    without_time = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text) for text in (first, again)]
    assert without_time[0] == without_time[1]
    assert [path.name for path in out.parent.iterdir()] == ["b.html"]
    assert (len(first) - 60_000) / 3 < 200_000  # bytes for each image: fifty stay below 10 MB
