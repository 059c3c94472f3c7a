"""Settings layers: who wins, where a value comes from, and what an error says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.settings.resolve import PROFILES, Base, resolve


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_names_its_origin(profile: str) -> None:
    resolved = resolve(profile)
    file = yaml.safe_load(Path(f"configs/{profile}.yaml").read_text()) or {}
    assert set(resolved.layers.values()) == ({f"profile {profile}"} if file else set())


def test_the_paper_profile_is_the_defaults() -> None:
    assert resolve("paper").settings == Settings()


def test_reference_differs_from_paper_in_these_settings_only() -> None:
    paper = {name: value for name, value, _ in resolve("paper").rows()}
    reference = {name: value for name, value, _ in resolve("reference").rows()}
    assert {name: (paper[name], reference[name]) for name in paper if paper[name] != reference[name]} == {
        "masks.sam.channels": ("rgb", "bgr"),
        "masks.proposals.channels": ("rgb", "bgr"),
        "masks.match": ("iou", "overlap"),
        "masks.deduplicate": (True, False),
        "masks.drop_full_frame": (False, True),
        "captions.crop_style": ("mended", "released"),
        "captions.contrast_max_masks": (None, 30),
        "captions.pad_ends_row": (False, True),
        "filter.crop_style": ("mended", "released"),
        "filter.clamp": (True, False),
        "filter.doc_cap": (100.0, None),
        "filter.one_mask_half": ("texts", "candidates"),
        "filter.nouns.rule": ("mended", "released"),
        "filter.prompt_style": ("mended", "released"),
    }


def test_flags_win_over_set_over_file_over_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("captions: {contrast: 0.1, top_k: [1]}\nmasks: {match: overlap, sam: {points_per_side: 8}}\n")
    resolved = resolve("fast", file, ["captions.contrast=0.2", "masks.match=iou"], {"captions.contrast": 0.3})
    settings = resolved.settings
    assert settings.captions.contrast == 0.3
    assert resolved.layers["captions.contrast"] == "flag"
    assert settings.masks.match == "iou"
    assert resolved.layers["masks.match"] == "--set masks.match=iou"
    assert settings.captions.top_k == (1,)
    assert resolved.layers["captions.top_k"] == str(file)
    assert settings.masks.sam.model == "vit_b"
    assert resolved.layers["masks.sam.model"] == "profile fast"


def test_a_local_settings_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pseudoris.yaml").write_text("filter: {min_doc: 1.5}\n")
    monkeypatch.chdir(tmp_path)
    assert resolve().settings.filter.min_doc == 1.5


def test_another_backend_drops_the_settings_of_the_old_one() -> None:
    settings = resolve("demo", assignments=["masks.proposals.backend=none"]).settings
    assert settings.masks.proposals.model_dump() == {"backend": "none"}


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("masks.sam.point_per_side=3", "did you mean masks.sam.points_per_side?"),
        ("captions.contrast=-1", "captions.contrast: Input should be greater than or equal to 0, not -1"),
        ("captions.contrst=1", "did you mean captions.contrast?"),
        ("nothing.at_all=1", "nothing: there is no such setting"),
        ("masks.proposals.backend=yolo", "there is no backend 'yolo'; choose from"),
        ("masks.max_pixels=many", "masks.max_pixels: Input should be a valid integer"),
        ("filter.min_doc=.nan", "filter.min_doc"),
        ("no-equals-sign", "write --set section.name=value"),
        ("captions.top_k=[1", "is not a plain YAML value"),
        ("captions.top_k=!!python/object/apply:os.getcwd []", "is not a plain YAML value"),
    ],
)
def test_a_bad_setting_is_named_with_its_origin(assignment: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(assignments=[assignment])
    assert says in str(error.value)
    assert error.value.exit_code == 2


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    for text in ("- 1\n", "1: 2\n", "!!python/object/apply:os.getcwd []\n", "a: [\n"):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(UsageError, match=r"bad\.yaml"):
            resolve(file=file)
    with pytest.raises(UsageError, match="cannot read the settings file"):
        resolve(file=tmp_path / "absent.yaml")


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="paper, reference, fast, demo"):
        resolve("papr")


ALIASES = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "captions: !!python/object/apply:os.mkdir [executed]",
        "captions: !!python/name:os.system",
        "captions: &a {b: *a}",
        ALIASES + "captions: {top_k: *i}",
        "captions: " + "[" * 20_000,
        "captions: " + "{a: " * 300 + "1" + "}" * 300,
        "captions: {seed: " + "9" * 10_000 + "}",
        "captions: {seed: 2020-99-99}",
        "captions: {[1]: 2}",
        "captions: \0",
    ],
)
def test_hostile_yaml_is_refused_and_nothing_of_it_runs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml"):
        resolve(None, tmp_path / "x.yaml")
    assert not (tmp_path / "executed").exists()


def test_a_deep_value_of_a_flag_is_refused() -> None:
    with pytest.raises(UsageError, match="--set"):
        resolve(None, None, ["captions.seed=" + "[" * 5000])


def test_a_file_for_the_usual_backend_goes_with_a_directory_of_another(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("masks: {proposals: {min_size: 128}, max_per_image: 4}\nfilter: {min_doc: 2}\n")
    base = Base("work", "demo", {"masks.proposals.backend": "coco_masks", "masks.proposals.path": "own.json"})
    resolved = resolve(file=tmp_path / "x.yaml", base=base)
    assert resolved.settings.masks.proposals.backend == "coco_masks"
    assert (resolved.settings.masks.max_per_image, resolved.settings.filter.min_doc) == (4, 2)
    assert [note.rpartition(": ")[2] for note in resolved.notes] == ["masks.proposals.min_size"]
    (tmp_path / "x.yaml").write_text("masks: {proposals: {min_sise: 128}}\n")
    with pytest.raises(UsageError, match="min_sise"):
        resolve(file=tmp_path / "x.yaml", base=base)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_settings_file_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.yaml").write_text("filter: {min_doc: 2}\r\n", encoding=encoding)
    assert resolve(file=tmp_path / "x.yaml").settings.filter.min_doc == 2
