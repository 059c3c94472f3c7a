"""The command as a user calls it: help, errors and exit codes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from invoking import invoke

from pseudoris_cli.settings.resolve import PROFILES


def pseudoris(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pseudoris_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_help_names_every_command_and_imports_no_network(tmp_path: Path) -> None:
    done = pseudoris("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in (
        "demo",
        "masks",
        "captions",
        "filter",
        "export",
        "run",
        "status",
        "report",
        "evaluate",
        "weights",
        "config",
        "doctor",
    ):
        assert f"\n  {name} " in done.stdout
    heavy = "import sys, pseudoris_cli.cli.app; print([m for m in ('torch', 'pyarrow', 'spacy', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("profile", PROFILES)
def test_config_show_is_a_settings_file_that_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = invoke("config", "show", "--profile", profile).stdout
    settings = [line for line in shown.splitlines()[2:] if not line.endswith(":")]
    assert [line for line in settings if "  # " not in line] == [], "a setting without a meaning"
    (tmp_path / "pseudoris.yaml").write_text(shown)
    again, own = (json.loads(invoke("config", "show", "--json", *call).stdout) for call in ((), ("--profile", profile)))
    assert {name: row["value"] for name, row in again.items()} == {name: row["value"] for name, row in own.items()}
    assert len(settings) == len(own) > 50
    for name, row in again.items():  # defaults are commented out: a saved copy sets only what the profile sets
        assert row["origin"] == ("default" if own[name]["origin"] == "default" else "pseudoris.yaml")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["masks", "--no-such-flag"], 2, "No such option"),
        (["masks"], 2, "has no source yet: name it once with --images"),
        (["masks", "--images", "absent"], 2, "there is no such file or folder"),
        (["masks", "--images", "empty"], 2, "has no images"),
        (["masks", "--images", "pictures", "--set", "masks.nope=1"], 2, "masks.nope: there is no such setting"),
        (["masks", "--images", "pictures", "--gpu", "7", "--config", "{random}"], 2, "cuda:7 is not there"),
        (["masks", "--images", "pictures", "--gpu", "0", "--device", "cpu"], 2, "not both"),
        (["masks", "--images", "pictures", "--device", "tpu"], 2, "choose cpu, mps, cuda"),
        (["masks", "--images", "pictures", "--shard", "4/4"], 2, "0 <= i < n"),
        (["masks", "--images", "pictures"], 3, "pseudoris weights fetch"),
        (["masks", "--images", "pictures", "--set", "masks.sam.checkpoint=random:x"], 2, "random:SEED"),
        (["captions"], 2, "run `pseudoris masks` first"),
        (["filter"], 2, "run `pseudoris captions` first"),
        (["export", "--out", "out"], 2, "run `pseudoris filter` first"),
        (["export"], 2, "--out is missing"),
        (["status"], 2, "is no work directory yet"),
        (["report"], 2, "is no work directory yet"),
        (["run", "--images", "pictures", "--shard", "0/2"], 2, "--shard goes with masks"),
        (["run", "--images", "pictures", "--out", "out"], 3, "pseudoris weights fetch sam_vit_h"),
        (["run", "--images", "pictures", "--out", "out"], 3, "pseudoris weights fetch --profile NAME"),
        (["run", "--images", "pictures", "--out", "pictures/out"], 2, "lies within the images"),
        (["run", "--images", "pictures", "--out", "pseudoris-work/export"], 2, "lies within the work directory"),
        (
            ["run", "--images", "pictures", "--work", "box/work", "--out", "box", "--overwrite"],
            2,
            "would replace the work directory",
        ),
        (["run", "--images", "pictures", "--out", "taken", "--format", "jsonl"], 2, "replace it with --overwrite"),
        (["run", "--images", "pictures", "--out", "out", "--format", "refcoc"], 2, "did you mean refcoco?"),
        (["run", "--images", "pictures", "--out", "out", "--export-images", "all"], 2, "choose from copy, link, none"),
        (["prune"], 2, "is no work directory yet"),
        (["evaluate", "--truth", "absent.json"], 2, "run `pseudoris masks` first"),
        (["weights", "fetch", "sam_vit"], 2, "did you mean sam_vit_"),
        (["config", "show", "--config", "absent.yaml"], 2, "absent.yaml: No such file or directory"),
        (
            ["config", "show", "--set", "captions=1"],
            2,
            "captions is a section, not 1: set what is in it, e.g. captions.",
        ),
        (["config", "show", "--set", "captions.contrst=1"], 2, "did you mean captions.contrast?"),
        (
            ["config", "show", "--set", "captions.backend=vlm", "--set", "captions.contrast=1"],
            2,
            "captions.contrast: the backend that is chosen there has no such setting (from --set captions.contrast=1)",
        ),
        (["config", "show", "--set", "masks.sam.backend=samm"], 2, "did you mean sam?"),
        (
            ["config", "show", "--profile", "papr"],
            2,
            "choose from paper, reference, fast, demo, random, modern, open; did you mean paper?",
        ),
    ],
)
def test_a_foreseeable_error_is_one_message_and_its_exit_code(
    tmp_path: Path, repository: Path, arguments: list[str], code: int, says: str
) -> None:
    from PIL import Image

    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "taken" / "things").mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(tmp_path / "pictures" / "a.png")
    filled = [a.replace("{random}", str(repository / "configs" / "random.yaml")) for a in arguments]
    done = pseudoris(*filled, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
