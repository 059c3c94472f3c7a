"""Finding plug-ins: names, dotted paths, packages that are missing inside one, names that two packages claim."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.resolve import resolve

BACKEND = """
from pseudoris_cli.settings.models import CaptionSettings
ROLE = {role}
class Settings(CaptionSettings):
    words: int = 3
def load(settings, numerics, device): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's on the path."""
    before = set(sys.modules)
    (tmp_path / "mine").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "mine"
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "mine":
            del sys.modules[name]


def refusal(*assignments: str) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(assignments=assignments)
    return str(caught.value)


def test_every_backend_is_refused_in_every_other_role() -> None:
    sections = {
        "segmenter": "masks.sam",
        "proposer": "masks.proposals",
        "captioner": "captions",
        "scorer": "filter.scorer",
        "nouns": "filter.nouns",
        "listener": "filter.judge",
    }
    assert len(plugins.names(plugins.BACKENDS)) >= 8
    for name in plugins.names(plugins.BACKENDS):
        for role, section in sections.items():
            if role in plugins.roles(name):
                continue
            told = refusal(f"{section}.backend={name}")
            own = " and a ".join(plugins.roles(name))
            assert f"{section}.backend: {name!r} is a {own}, not a {role}; choose from " in told
            assert ", ".join(plugins.backends_of(role)) in told


def test_a_dotted_path_is_taken_with_its_settings(own: Path) -> None:
    (own / "shout.py").write_text(BACKEND.format(role='"captioner"'))
    settings = resolve(assignments=["captions.backend=mine.shout", "captions.words=5"]).settings
    assert (settings.captions.backend, settings.captions.words) == ("mine.shout", 5)
    assert "captions.wrds: there is no such setting" in refusal("captions.backend=mine.shout", "captions.wrds=5")
    assert plugins.roles("mine.shout") == ("captioner",)


def test_a_backend_may_have_several_roles(own: Path) -> None:
    (own / "both.py").write_text(BACKEND.format(role='("captioner", "listener")'))
    assert resolve(assignments=["captions.backend=mine.both"]).settings.captions.backend == "mine.both"
    assert "is a captioner and a listener, not a proposer" in refusal("masks.proposals.backend=mine.both")


def test_what_is_no_backend_is_told_so(own: Path) -> None:
    (own / "empty.py").write_text("")
    assert "'mine.empty' is no backend: it defines no ROLE" in refusal("captions.backend=mine.empty")
    (own / "thick.py").write_text(BACKEND.format(role='"captioner"').replace("CaptionSettings", "BackendSettings"))
    assert "its Settings must derive from" in refusal("captions.backend=mine.thick")
    (own / "wrong.py").write_text("ROLE = \n")
    assert "(mine.wrong) cannot be imported: invalid syntax" in refusal("captions.backend=mine.wrong")
    assert "the module 'mine.absent' cannot be imported" in refusal("captions.backend=mine.absent")
    for name in ("../evil", "", "no spaces", "1st"):
        assert "there is no backend" in refusal(f"captions.backend={name!r}")


def test_a_package_that_a_backend_needs_is_named(own: Path) -> None:
    (own / "needy.py").write_text("import not_installed.deep\n" + BACKEND.format(role='"captioner"'))
    with pytest.raises(MissingDependency, match=r"'mine\.needy' needs the package 'not_installed'"):
        resolve(assignments=["captions.backend=mine.needy"])


def test_the_identity_of_a_file_is_its_content(own: Path) -> None:
    (own / "shout.py").write_text(BACKEND.format(role='"captioner"'))
    first = plugins.identity(plugins.BACKENDS, "mine.shout")
    assert first
    assert first.startswith("mine.shout ")
    (own / "shout.py").write_text(BACKEND.format(role='"captioner"') + "# changed\n")
    assert plugins.identity(plugins.BACKENDS, "mine.shout") != first
    assert plugins.identity(plugins.BACKENDS, "sam") is None


def test_a_name_that_two_packages_claim_is_refused_only_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [metadata.EntryPoint("twin", f"package_{n}.backend", plugins.BACKENDS.group) for n in (1, 2)]
    entries.append(metadata.EntryPoint("sam", "package_3.sam", plugins.BACKENDS.group))
    monkeypatch.setattr(metadata, "entry_points", lambda group: [e for e in entries if e.group == group])
    plugins.known.cache_clear()
    try:
        assert "twin" in plugins.names(plugins.BACKENDS)
        assert plugins.locate(plugins.BACKENDS, "sam").module == "pseudoris_cli.backends.sam", "ours wins"
        with pytest.raises(
            UsageError, match=r"two installed packages bring a backend named 'twin': package_1\.backend"
        ):
            plugins.locate(plugins.BACKENDS, "twin")
    finally:
        plugins.known.cache_clear()
