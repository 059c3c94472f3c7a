"""`status`, `diff` and `prune --dry-run`: what versions there are, in what they differ, and what each holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoking import Outcome, invoke
from work_maker import WorkMaker

from pseudoris_cli.cli import console
from pseudoris_cli.storage.comparison import compare, find_any
from pseudoris_cli.storage.status import version_states
from pseudoris_cli.storage.versions import Difference, differences
from pseudoris_cli.storage.workspace import Artifact


@pytest.fixture
def maker(tmp_path: Path) -> WorkMaker:
    """Four scenes, filtered with one threshold and then with two others."""
    made = WorkMaker(tmp_path / "made", 4, part_size=2)
    made.all()
    scores = made.workspace.latest("scores")
    made.filter(scores, 1.2)
    made.filter(scores, 1.3)
    return made


@pytest.fixture
def width(request: pytest.FixtureRequest) -> Iterator[int]:
    before = console.out.width
    console.out.width = request.param
    yield request.param
    console.out.width = before


def filters(maker: WorkMaker) -> dict[float, Artifact]:
    return {one.header["settings"]["min_doc"]: one for one in maker.workspace.versions("filter")}


def kept(maker: WorkMaker, artifact: Artifact) -> set[tuple[str, int, str]]:
    from pseudoris_cli.evaluation.workspace import rows

    found = rows(artifact, ["image_key", "mask_id", "caption", "kept"])
    return {(row["image_key"], int(row["mask_id"]), row["caption"]) for row in found if row["kept"]}


def date(artifact: Artifact, when: str) -> None:
    """Let a version have been begun at this time."""
    path = artifact.folder / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": when}))


def call(command: str, maker: WorkMaker, *more: str) -> Outcome:
    done = invoke(command, *more, "--work", maker.workspace.root)
    assert done.code == 0, done.stderr
    return done


@pytest.mark.parametrize("width", [60, 80, 160], indirect=True)
def test_status_is_by_date_and_says_what_differs_and_what_is_current(maker: WorkMaker, width: int) -> None:
    made = filters(maker)
    for day, threshold in enumerate((1.3, 1.0, 1.2)):
        date(made[threshold], f"2026-01-0{day + 1}T00:00:00+00:00")
    text = call("status", maker).stdout
    assert max(map(len, text.splitlines()[1:-1])) <= width  # the first and last line are folded on a terminal only
    found = [line for line in text.splitlines() if line.startswith(("filter", "    "))]
    assert [line.split()[1] for line in found if line.startswith("filter")] == [
        made[n].version for n in (1.3, 1.0, 1.2)
    ]
    assert [line.strip() for line in found if line.startswith("    ")] == [
        "filter.min_doc 1.3 → 1.0",
        "filter.min_doc 1.0 → 1.2",
    ]
    marked = re.findall(r"(\w{12}) \*  +4/4 ", text)
    assert set(marked) == {str(maker.workspace.current(stage)) for stage in ("masks", "captions", "scores", "filter")}


def test_status_for_machines_says_the_same(maker: WorkMaker) -> None:
    for day, threshold in enumerate((1.0, 1.2, 1.3)):
        date(filters(maker)[threshold], f"2026-01-0{day + 1}T00:00:00+00:00")
    versions = [v for v in json.loads(call("status", maker, "--json").stdout)["versions"] if v["stage"] == "filter"]
    assert [v["differs"] for v in versions] == [
        [],
        [{"name": "filter.min_doc", "before": 1.0, "after": 1.2}],
        [{"name": "filter.min_doc", "before": 1.2, "after": 1.3}],
    ]
    assert [v["current"] for v in versions] == [False, False, True]
    assert [(v["images"], v["pending"], v["unfinished"], v["pilot"]) for v in versions] == [(4, 0, False, None)] * 3
    assert [v["created"][:10] for v in versions] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_diff_tells_settings_counts_and_kept_captions(maker: WorkMaker) -> None:
    low, high = filters(maker)[1.0], filters(maker)[1.3]
    before, after = kept(maker, low), kept(maker, high)
    assert before > after
    found = compare(maker.workspace, low, high)
    assert found.differs == (Difference("filter.min_doc", 1.0, 1.3),)
    assert found.kept
    assert (found.kept.both, found.kept.gained, found.kept.lost, found.kept.images) == (
        len(after), 0, len(before - after), 4,
    )  # fmt: skip
    assert set(found.kept.lost_examples) <= before - after
    back = compare(maker.workspace, high, low)
    assert back.kept
    assert (back.kept.gained, back.kept.lost) == (found.kept.lost, 0)
    text = call("diff", maker, low.version[:6], high.version[:6]).stdout
    assert "settings: filter.min_doc 1.0 → 1.3\n" in text
    assert f"{len(after):,} in both, 0 gained, {len(before - after):,} lost" in text
    plain = json.loads(call("diff", maker, low.version, high.version, "--json").stdout)
    assert (plain["a"]["version"], plain["b"]["current"], plain["kept"]["lost"]) == (low.version, True, found.kept.lost)


def test_diff_of_captions_compares_filters_of_equal_settings(maker: WorkMaker) -> None:
    masks = maker.workspace.latest("masks")
    first = maker.workspace.latest("captions")
    content = {
        "schema": 2,
        "upstream": masks.version,
        "plan": "plan.jsonl",
        "settings": {"backend": "coca", "contrast": 0},
    }
    other = maker.workspace.open_version("captions", content, {})
    with pytest.raises(Exception, match="is no version of"):
        find_any(maker.workspace, "xyz")
    unfiltered = compare(maker.workspace, first, other)
    assert unfiltered.kept is None
    assert Difference("captions.contrast", 1.0, 0) in unfiltered.differs
    assert "was never filtered" in call("diff", maker, first.version, other.version).stdout
    wrong = invoke("diff", masks.version, first.version, "--work", maker.workspace.root)
    assert (wrong.code, "name two of one stage" in " ".join(wrong.stderr.split())) == (2, True)


def test_diff_of_a_pilot_looks_at_the_images_of_both(maker: WorkMaker) -> None:
    whole = filters(maker)[1.3]
    maker.begin_pilot(2)
    pilot = maker.filter(maker.scores(maker.captions(maker.masks())), 1.3)
    found = compare(maker.workspace, pilot, whole)
    assert found.kept
    assert (found.kept.images, found.kept.by_mask) == (2, False)
    mine = {(key, text) for key, _, text in kept(maker, pilot)}
    theirs = {(key, text) for key, _, text in kept(maker, whole) if key in ("000000.png", "000001.png")}
    assert (found.kept.both, found.kept.gained, found.kept.lost) == (
        len(mine & theirs), len(theirs - mine), len(mine - theirs),
    )  # fmt: skip


def test_a_setting_at_its_default_is_told_by_what_was_in_force(maker: WorkMaker) -> None:
    def version(settings: dict, resolved: dict) -> Artifact:
        header = {"settings": settings, "resolved": {"filter": resolved}, "upstream": None, "plan": "plan.jsonl"}
        return Artifact("filter", "x", Path("x"), header)

    old = version({}, {"one_mask_half": "texts"})
    new = version({"one_mask_half": "candidates"}, {"one_mask_half": "candidates"})
    assert list(map(str, differences(old, new))) == ["filter.one_mask_half texts → candidates"]


def test_prune_says_pilot_counts_and_what_differs_and_keeps_the_fullest(maker: WorkMaker) -> None:
    scores = maker.workspace.latest("scores")
    date(filters(maker)[1.3], "2026-01-03T00:00:00+00:00")
    maker.begin_pilot(2)
    pilot = maker.masks()
    before = sorted(path for path in maker.workspace.root.rglob("*"))
    text = call("prune", maker, "--dry-run").stdout
    assert sorted(path for path in maker.workspace.root.rglob("*")) == before
    assert re.search(rf"masks/{pilot.version}  \(pilot of 2 images\)\n +2 of 2 images, \d+ rows, begun 20", text)
    old = filters(maker)[1.2].version
    assert re.search(rf"filter/{old}  \(not the current.*\)\n +4 of 4 images, .*: filter.min_doc 1.3 → 1.2", text)
    assert "nothing deleted (--dry-run)" in text

    maker.plan = maker.workspace.plan()
    small = maker.filter(Artifact("scores", scores.version, scores.folder, scores.header), 1.9)
    manifest = small.folder / "manifest-main.jsonl"
    manifest.write_text(manifest.read_text().splitlines(keepends=True)[0])
    maker.workspace.use(small)
    text = call("prune", maker, "--dry-run").stdout
    assert filters(maker)[1.3].version not in text, "the fullest and newest, though another is current"
    assert filters(maker)[1.2].version in text
    states = {state.version: state for state in version_states(maker.workspace)}
    assert (states[small.version].current, states[small.version].unfinished) == (True, True)


def test_with_and_without_a_judge_between_is_told_with_its_stages() -> None:
    plain, heard = (
        Artifact(
            "filter", "x", Path("x"), {"settings": {}, "upstream": "a1", "upstream_stage": stage, "plan": "plan.jsonl"}
        )
        for stage in ("scores", "judge")
    )
    other = Artifact("filter", "y", Path("y"), plain.header | {"upstream": "b2"})
    assert list(map(str, differences(plain, other))) == ["scores a1 → b2"]
    heard.header["upstream"] = "c3"
    assert list(map(str, differences(plain, heard))) == ["made from scores a1 → judge c3"]
