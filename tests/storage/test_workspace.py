"""The work directory: versions are named by their content, found again by name, and explained when they are not there."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage.plan import pilot_plan
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Artifact, Workspace, fingerprint


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "deep" / "work")
    made.create()
    return made


def content(upstream: str | None = None, **values: Any) -> dict[str, Any]:
    return {"schema": SCHEMA_VERSION, "upstream": upstream, "plan": "plan.jsonl", **values}


def test_a_version_is_named_by_its_content_in_any_order() -> None:
    assert fingerprint({"b": [1, 2], "a": {"y": "ü", "x": None}}) == fingerprint(
        {"a": {"x": None, "y": "ü"}, "b": [1, 2]}
    )
    text = '{"a":"ü","b":{"x":null,"y":1}}'  # another rule would rename every version there is
    assert fingerprint({"b": {"y": 1, "x": None}, "a": "ü"}) == blake2b(text.encode(), digest_size=6).hexdigest()
    assert len({fingerprint({"a": value}) for value in (1, "1", None, [1], True)}) == 5


def test_what_is_recorded_beside_a_version_does_not_name_it(workspace: Workspace) -> None:
    first = workspace.open_version("masks", content(settings=1), {"device": "cpu"})
    again = workspace.open_version("masks", content(settings=1), {"device": "cuda"})
    assert again == first
    assert first.version == fingerprint(content(settings=1))
    assert first.folder == workspace.root / "masks" / first.version
    assert first.header == content(settings=1) | {"device": "cpu", "stage": "masks", "version": first.version}
    assert first.plan_name == "plan.jsonl"
    other = workspace.open_version("masks", content(settings=2), {})
    assert [artifact.version for artifact in workspace.versions("masks")] == sorted([first.version, other.version])


def answer(artifact: Artifact, *parts: int) -> None:
    """Lines of a manifest as if these parts had been done."""
    names = ("generation", "counts", "notes", "seconds", "committed")
    blank = dict.fromkeys(names, 0) | {"upstream": None, "counts": {"done": 1}, "images": []}
    with (artifact.folder / "manifest-main.jsonl").open("a") as file:
        for part in parts:
            file.write(
                json.dumps({**blank, "part": part, "file": {"name": "p", "rows": 1, "bytes": 1, "sha256": ""}}) + "\n"
            )


def test_a_version_is_current_once_every_planned_image_is_answered(workspace: Workspace) -> None:
    workspace.plan().extend([ImageRef(key, 1, key) for key in "ab"], 1)
    assert workspace.current("masks") is None
    first = workspace.open_version("masks", content(settings=1), {})
    answer(first, 0)
    assert not workspace.settle(first)
    assert workspace.current("masks") is None
    assert workspace.latest("masks") == first, "where none is current yet, the one at work"
    answer(first, 1)
    assert workspace.current("masks") == first.version, "even where its process died before it could say so"
    assert workspace.settle(first)
    assert (workspace.root / "masks" / "current").read_text() == f"{first.version}\n"
    other = workspace.open_version("masks", content(settings=2), {})
    assert (workspace.current("masks"), workspace.unfinished("masks")) == (first.version, other.version)
    assert workspace.latest("masks") == first
    assert workspace.latest("masks", other.version[:7]) == other
    answer(other, 0, 1)
    workspace.settle(other)
    assert (workspace.current("masks"), workspace.unfinished("masks")) == (other.version, None)
    workspace.plan().extend([ImageRef("c", 1, "c")], 1)
    assert workspace.current("masks") == other.version, "new images take nothing away"
    workspace.open_version("masks", content(settings=1), {})
    assert workspace.current("masks") == other.version
    workspace.use(first)
    assert Workspace(workspace.root).latest("masks") == first
    (workspace.root / "masks" / "current").write_text("\n")
    assert workspace.current("masks") is None


def test_the_beginning_of_a_name_is_enough_where_it_is_the_only_one(workspace: Workspace) -> None:
    made = [workspace.open_version("masks", content(settings=n), {}) for n in range(17)]
    assert [workspace.find("masks", one.version) for one in made] == made
    first = sorted(one.version[0] for one in made)
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(
        UsageError, match=rf"'{twice}' begins {first.count(twice)} versions of masks: .*; give more of it"
    ):
        workspace.find("masks", twice)
    for name in ("", "xyz"):
        with pytest.raises(UsageError, match=f"no version '{name}' of masks"):
            workspace.find("masks", name)


def test_pilots_have_a_current_version_of_their_own(workspace: Workspace) -> None:
    for plan in ("plan.jsonl", pilot_plan(2)):
        workspace.plan(plan).extend([ImageRef("a", 1, "a")], 1)
    real = workspace.open_version("masks", content(), {})
    answer(real, 0)
    pilot = workspace.open_version("masks", content() | {"plan": pilot_plan(2)}, {})
    answer(pilot, 0)
    for one in (real, pilot):
        assert workspace.settle(one)
        assert workspace.current("masks", one.plan_name) == one.version
    assert workspace.pilots() == [pilot_plan(2)]
    (workspace.root / "masks" / "current").write_text(pilot.version)  # as version 0.1 did
    assert workspace.current("masks") == real.version
    (workspace.root / "masks" / "begun").unlink()
    assert workspace.current("masks") is None
    assert workspace.latest("masks") == real


def test_a_version_taken_back_leaves_nothing_unless_it_holds_parts(workspace: Workspace) -> None:
    workspace.plan().extend([ImageRef("a", 1, "a")], 1)
    first = workspace.open_version("masks", content(settings=1), {})
    other = workspace.open_version("masks", content(settings=2), {})
    workspace.discard(other, first.version)
    assert (workspace.begun("masks"), other.folder.exists()) == (first.version, False)
    answer(first, 0)
    workspace.discard(first, None)
    assert workspace.latest("masks") == first


def test_a_version_that_is_not_there_is_explained(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"holds no version of scores yet; run `pseudoris filter` first"):
        workspace.latest("scores")
    with pytest.raises(UsageError, match=r"no version 'abc' of masks .*\(there are: none\)$"):
        workspace.artifact("masks", "abc")
    made = sorted(workspace.open_version("masks", content(settings=n), {}).version for n in range(2))
    with pytest.raises(UsageError, match=rf"\(there are: {made[0]}, {made[1]}\)$"):
        workspace.artifact("masks", "abc")
    with pytest.raises(UsageError, match=rf"\(there are: none\); {made[0]} is a version of masks$"):
        workspace.artifact("captions", made[0])


def test_a_version_of_another_schema_is_refused(workspace: Workspace) -> None:
    old = workspace.open_version("masks", content() | {"schema": 1}, {})
    assert old.header["schema"] == 1, "version 1 is read as before"
    with pytest.raises(UsageError, match=r"has schema version 99; this pseudoris reads 1, 2\. "):
        workspace.open_version("masks", content() | {"schema": 99}, {})


def test_the_chain_leads_back_to_the_masks(workspace: Workspace) -> None:
    masks = workspace.open_version("masks", content(), {})
    captions = workspace.open_version("captions", content(masks.version), {})
    scores = workspace.open_version("scores", content(captions.version), {})
    assert workspace.chain(scores) == {"scores": scores, "captions": captions, "masks": masks}
    assert list(workspace.chain(scores)) == ["scores", "captions", "masks"]
    assert workspace.chain(masks) == {"masks": masks}
    assert [one.upstream_stage for one in (masks, captions, scores)] == [None, "masks", "captions"]
    assert (masks.upstream, scores.upstream) == (None, captions.version)


def test_a_stage_made_from_an_optional_one_records_it(workspace: Workspace) -> None:
    masks = workspace.open_version("masks", content(), {})
    filtered = workspace.open_version("filter", content(masks.version, upstream_stage="masks"), {})
    assert filtered.upstream_stage == "masks"
    assert workspace.open_version("scores", content(), {}).upstream_stage is None, "made from nothing"
    assert list(workspace.chain(filtered)) == ["filter", "masks"]


def test_the_source_is_remembered(workspace: Workspace) -> None:
    assert workspace.source() is None
    with workspace.changing():
        workspace.set_source({"kind": "folder", "path": "/ü"})
    assert Workspace(workspace.root).source() == {"kind": "folder", "path": "/ü"}


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read"), ("[1]", "does not hold a JSON object")])
def test_a_damaged_small_file_is_named(workspace: Workspace, text: str, says: str) -> None:
    (workspace.root / "source.json").write_text(text)
    with pytest.raises(UsageError, match=rf"source\.json {says}"):
        workspace.source()


def test_plans_have_names(workspace: Workspace) -> None:
    assert not workspace.has_plan()
    workspace.plan("plan-pilot.jsonl").extend([ImageRef("a", 1, "a")], 1)
    assert workspace.has_plan()
    assert len(workspace.plan()) == 0
    assert len(workspace.plan("plan-pilot.jsonl")) == 1


def test_a_place_where_no_folder_can_be_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentStop):
        Workspace(tmp_path / "file" / "work").create()


def test_a_header_is_readable_text(workspace: Workspace) -> None:
    """People look into artifact.json: indented, and letters as they are."""
    made = workspace.open_version("masks", content(name="ü"), {})
    text = (made.folder / "artifact.json").read_text(encoding="utf-8")
    assert '\n  "name": "ü"' in text
    assert json.loads(text) == made.header


@pytest.mark.parametrize("name", ["masks", "captions", "scores", "filter", "export"])
def test_a_folder_of_somebody_else_s_is_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    Workspace(tmp_path / "data").create()
    (tmp_path / "data" / name / "1.png").write_text("mine")
    with pytest.raises(UsageError, match="not of pseudoris; choose a new folder"):
        Workspace(tmp_path / "data").create()


def test_a_file_is_no_work_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "work"):
        with pytest.raises(UsageError, match="is a file, or lies below one"):
            Workspace(place).source()


@pytest.mark.parametrize(("call", "name"), [("os.replace", "rename"), ("fcntl.flock", "lock")])
def test_a_file_system_that_cannot_hold_the_work_is_refused_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        with pytest.raises(UsageError, match=f"its file system cannot {name} .Function not implemented."):
            Workspace(tmp_path / "work").create()
    Workspace(tmp_path / "work").create()
