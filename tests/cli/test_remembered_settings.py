"""Work directories remember their settings: later commands start from them and say so, whatever made the directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from command_server import CONFIG
from invoking import Outcome, draw_pictures, invoke
from locations import FIXTURES

from pseudoris_cli.settings.resolve import PROFILES, Base, deviations, known_settings, resolve
from pseudoris_cli.storage.workspace import Workspace

pytestmark = pytest.mark.timeout(300)
OLD = FIXTURES / "work_0_1"
FAST = ("--set", "masks.max_per_image=1", "--set", "captions.top_k=[5]", "--set", "captions.top_p=[]")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory that the profile demo made before there was a settings.yaml."""
    shutil.copytree(OLD / "work", tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def masks_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of one picture, with a settings file and more."""
    folder = tmp_path_factory.mktemp("remembered")
    draw_pictures(folder / "images", 1)
    done = call(folder / "work", "masks", "--images", folder / "images", "--config", CONFIG, *FAST)
    assert done.code == 0, done.stderr
    return folder / "work"


@pytest.fixture
def work(masks_made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(masks_made, tmp_path / "work")
    return tmp_path / "work"


def call(work: Path, command: str, *arguments: str | Path) -> Outcome:
    done = invoke(command, "--work", work, "--device", "cpu", *arguments)
    return Outcome(done.code, done.stdout, " ".join(done.stderr.split()))


def entries(work: Path) -> dict:
    return yaml.safe_load((work / "settings.yaml").read_text())


def settings_of(work: Path, stage: str) -> dict:
    return Workspace(work).latest(stage).header["settings"]


def test_an_old_directory_of_the_demo_stays_in_the_demo(old: Path) -> None:
    done = call(old, "filter", "--min-doc", "1.5")
    assert done.code == 0, done.stderr
    assert "settings as before: profile demo" in done.stderr
    assert settings_of(old, "filter")["min_doc"] == 1.5
    assert entries(old)["filter"]["profile"] == "demo"
    there = ("--image-root", OLD / "scenes")  # where its images lie now
    again = json.loads(invoke("run", "--work", old, *there, "--device", "cpu", "-q", "--json").stdout)
    assert [stage["parts"] for stage in again["stages"]] == [0, 0, 0, 0], "masks and captions are the demo's too"


def test_another_profile_is_refused_unless_settings_are_to_be_new(old: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    for command in ("captions", "run"):
        done = call(old, command, "--profile", "paper")
        assert (done.code, "made with the profile demo" in done.stderr, "--new-settings" in done.stderr) == (
            2,
            True,
            True,
        )
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert call(old, "filter", "--profile", "demo").code == 0
    new = call(old, "filter", "--profile", "paper", "--new-settings")
    assert (new.code, "clip_rn50" in new.stderr) == (3, True), "the weights of paper are not here"
    assert entries(old)["filter"]["profile"] == "demo", "a command that was refused is not remembered"


def test_what_a_file_set_goes_on_with_the_later_commands(work: Path) -> None:
    assert entries(work)["masks"]["settings"]["captions.model"] == "tiny"
    refused = call(work, "captions", "--profile", "demo")
    assert (refused.code, "made with the profile paper" in refused.stderr) == (2, True)
    done = call(work, "captions")
    assert done.code == 0, done.stderr
    assert "settings as before: captions.model=tiny" in done.stderr
    assert settings_of(work, "captions")["top_k"] == [5]


def test_a_flag_changes_its_own_command_and_no_stage_before_it(work: Path) -> None:
    masks = Workspace(work).current("masks")
    assert call(work, "captions", "--set", "captions.seed=7", "--set", "numerics.tf32=true").code == 0
    captions = Workspace(work).current("captions")
    assert call(work, "captions").code == 0
    assert Workspace(work).current("captions") == captions
    assert call(work, "masks").code == 0
    assert [one.version for one in Workspace(work).versions("masks")] == [masks]
    assert Workspace(work).latest("masks").header["numerics"]["tf32"] is False
    assert call(work, "run", "-q").code == 0
    assert (Workspace(work).current("masks"), Workspace(work).current("captions")) == (masks, captions)


def test_a_version_that_is_used_brings_its_settings(work: Path) -> None:
    assert call(work, "captions").code == 0
    first = str(Workspace(work).current("captions"))
    assert call(work, "captions", "--set", "captions.seed=7").code == 0
    assert entries(work)["captions"]["settings"]["captions.seed"] == 7
    assert invoke("use", "captions", first, "--work", work).code == 0
    assert "captions.seed" not in entries(work)["captions"]["settings"]
    assert call(work, "captions").code == 0
    assert Workspace(work).current("captions") == first


def test_a_pilot_has_settings_of_its_own(work: Path) -> None:
    before = entries(work)
    assert call(work, "masks", "--pilot", "1", "--set", "masks.match=overlap").code == 0
    assert entries(work) == before
    assert settings_of(work, "masks")["match"] == "iou"
    assert call(work, "masks", "--pilot").code == 0
    [pilot] = [one for one in Workspace(work).versions("masks") if one.plan_name != "plan.jsonl"]
    assert (pilot.header["settings"]["match"], pilot.header["settings"]["max_per_image"]) == ("overlap", 1)


DAMAGED = ["masks: 3", "mask: {profile: paper, settings: {}}", "- 1", "masks: {profile: x, settings: {}}"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_settings_file_is_named(work: Path, text: str) -> None:
    (work / "settings.yaml").write_text(text)
    done = call(work, "captions")
    assert (done.code, "settings.yaml" in done.stderr) == (2, True)
    (work / "settings.yaml").unlink()
    assert call(work, "captions").code == 0, "the versions remember them too"


# --- an implicit file -------------------------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a settings file that nobody names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pseudoris.yaml").write_text("filter: {min_doc: 1.7}\nmasks: {sam: {points_per_side: 8}}\n")
    return tmp_path


def test_an_explicit_profile_beats_a_file_that_nobody_named(there: Path) -> None:
    assert resolve("fast").settings == resolve("fast", file=CONFIG.parent / "fast.yaml").settings
    assert resolve("fast").settings.masks.sam.points_per_side == 16
    assert resolve().settings.filter.min_doc == 1.7
    assert resolve(assignments=["filter.min_doc=2"], flags={"masks.match": "overlap"}).settings.filter.min_doc == 2
    assert resolve("fast", file=there / "pseudoris.yaml").settings.masks.sam.points_per_side == 8


@pytest.mark.parametrize("command", [["config", "show"], ["doctor"], ["captions", "--work", "absent"]])
def test_every_command_says_in_one_line_that_it_used_the_file(there: Path, command: list[str]) -> None:
    used = [line for line in invoke(*command).stderr.splitlines() if "pseudoris.yaml" in line]
    assert used == ["settings of ./pseudoris.yaml are used (--profile or --config leave it aside)"]
    left = [line for line in invoke(*command, "--profile", "fast").stderr.splitlines() if "pseudoris.yaml" in line]
    assert len(left) == 1
    assert "is not used, as --profile fast is given" in left[0]
    assert "./pseudoris.yaml" not in invoke(*command, "--config", "pseudoris.yaml").stderr


def test_a_saved_copy_of_the_defaults_sets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = invoke("config", "show").stdout
    assert yaml.safe_load(shown) is None
    (tmp_path / "pseudoris.yaml").write_text(shown)
    monkeypatch.chdir(tmp_path)
    assert resolve().layers == {}
    assert resolve("fast").settings.masks.sam.points_per_side == 16
    assert "  # min_doc: 1.0" in shown
    (tmp_path / "pseudoris.yaml").write_text(
        shown.replace("# filter:", "filter:").replace("# min_doc: 1.0", "min_doc: 1.4")
    )
    assert resolve().settings.filter.min_doc == 1.4


def test_config_show_and_doctor_start_from_what_the_directory_remembers(work: Path) -> None:
    shown = invoke("config", "show", "--work", work, "--json")
    assert json.loads(shown.stdout)["masks.max_per_image"]["value"] == 1
    assert "settings.yaml" in shown.stderr
    other = invoke("config", "show", "--work", work, "--profile", "fast", "--json")
    assert json.loads(other.stdout)["masks.max_per_image"]["value"] is None
    codes = [
        invoke("doctor", "--work", work, *more).code for more in ((), ("--config", CONFIG), ("--profile", "paper"))
    ]
    assert codes == [0, 0, 3], "the weights of paper are not here, those of the directory's own settings are"


# --- what deviates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "assignments", [(), ("masks.proposals.backend=none", "captions.contrast=0.5", "masks.max_per_image=3")]
)
def test_deviations_from_any_profile_give_the_settings_back(profile: str, assignments: tuple[str, ...]) -> None:
    sampled = resolve(profile).settings.captions.backend == "coca"  # other captioners have no contrast
    assignments = tuple(one for one in assignments if sampled or "contrast" not in one)
    wanted = resolve(profile, assignments=assignments).settings
    for other in PROFILES:
        base = Base("remembered", other, deviations(other, wanted.model_dump(mode="json")))
        assert resolve(base=base).settings == wanted
    assert deviations(profile, resolve(profile).settings.model_dump(mode="json")) == {}


def test_a_setting_that_there_is_no_more_is_left_out() -> None:
    values = resolve("demo").settings.model_dump(mode="json")
    values["masks"]["sam"]["gone"] = values["captions"]["gone"] = values["filter"]["gone"] = 1
    values["gone"] = {"a": 1}
    assert deviations("demo", known_settings(values)) == {}
