"""Pages that are made from the code say what it says (links: test_project_files.py)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from locations import REPOSITORY


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    path = REPOSITORY / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_docs", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_page_is_the_help_of_every_command(generate: ModuleType, repository: Path) -> None:
    assert (repository / "docs" / "commands.md").read_text() == generate.commands_page(), "run: make docs"


def test_every_command_is_documented(generate: ModuleType) -> None:
    from pseudoris_cli.cli.app import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    names |= {group.name for group in app.registered_groups if group.name}
    assert names == {command[0] for command in generate.COMMANDS if command}


def test_every_command_shows_an_example(generate: ModuleType, repository: Path) -> None:
    page = (repository / "docs" / "commands.md").read_text()
    for command in filter(None, generate.COMMANDS):
        title = " ".join(("## pseudoris", *command))
        assert "Example: pseudoris " + command[0] in page.split(f"{title}\n")[1].split("\n## ")[0], title


def test_the_settings_page_has_every_setting(generate: ModuleType, repository: Path) -> None:
    assert (repository / "docs" / "settings.md").read_text() == generate.settings_page(), "run: make docs"


def test_the_artifacts_page_has_the_schema(generate: ModuleType, repository: Path) -> None:
    page = (repository / "docs" / "artifacts.md").read_text()
    assert page == generate.artifacts_page(page), "run: make docs"
    assert "| `detector_score` | float, may be null |" in page


def test_every_setting_of_every_backend_says_what_it_means() -> None:
    from importlib import import_module

    from pseudoris_cli.settings.resolve import PROFILES, resolve
    from pseudoris_cli.settings.resources import resource

    found = [resolve(profile).settings for profile in PROFILES]
    for file in sorted(resource("backends").glob("[a-z]*.py")):
        if settings := getattr(import_module(f"pseudoris_cli.backends.{file.stem}"), "Settings", None):
            found.append(settings.tiny())
    assert len(found) > len(PROFILES) + 8, "this test has nothing to look at"
    assert [name for settings in found for name in _without_meaning(settings)] == []


def _without_meaning(model: Any, prefix: str = "") -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _without_meaning(value, f"{prefix}{name}.")
        elif len(info.description or "") < 8:
            yield f"{type(model).__module__}: {prefix}{name}"
