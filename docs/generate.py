"""Writes the pages that say what the code says: docs/commands.md, docs/settings.md and the tables of docs/artifacts.md.

Run it after a change: make docs. A test compares the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.settings.models import Settings
from pseudoris_cli.storage.schema import COLUMNS, OPTIONAL, SCHEMA_VERSION, Column

MARKS = ("<!-- schema: made by `make docs` -->", "<!-- end of schema -->")
DOCS = Path(__file__).resolve().parent
COMMANDS = (
    (),
    ("demo",),
    ("plan",),
    ("masks",),
    ("captions",),
    ("filter",),
    ("export",),
    ("run",),
    ("status",),
    ("report",),
    ("evaluate",),
    ("train-listener",),
    ("use",),
    ("diff",),
    ("prune",),
    ("merge",),
    ("config", "show"),
    ("doctor",),
    ("weights", "list"),
    ("weights", "fetch"),
    ("weights", "verify"),
)


def commands_page() -> str:
    """The help of every command, as a terminal of 100 columns shows it."""
    parts = ["# Commands\n\nMade from the command line itself by `make docs`; a test compares them."]
    for command in COMMANDS:
        title = " ".join(("pseudoris", *command))
        parts.append(f"## {title}\n\n```text\n{_help(command)}```")
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Every setting with its default and meaning."""
    lines = [
        "# Settings",
        "",
        "Made from the settings models by `make docs`; a test compares them. The defaults are the profile `paper`.",
        "Flags win over `--set section.name=value`, that over `--config FILE.yaml` (or `./pseudoris.yaml`), that over what the",
        "work directory remembers, that over `--profile`. With an explicit `--profile`, `./pseudoris.yaml` is left aside.",
        "A section with a `backend` takes the settings of that backend's file in `pseudoris_cli/backends/`.",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | `{value}` | {meaning} |" for name, value, meaning in _settings(Settings())]
    return "\n".join(lines) + "\n"


def artifacts_page(page: str) -> str:
    """The page with its generated part, between two marks, made anew."""
    parts = [f"Schema version {SCHEMA_VERSION}."]
    for stage, columns in COLUMNS.items():
        parts.append("\n".join([f"### {stage}", "", *_columns_table(columns)]))
        for more in OPTIONAL.get(stage, ()):
            parts.append("\n".join(["In some runs also (all of these, or none):", "", *_columns_table(more)]))
    head, tail = page.split(MARKS[0])[0], page.split(MARKS[1])[1]
    return head + MARKS[0] + "\n\n" + "\n\n".join(parts) + "\n\n" + MARKS[1] + tail


def _columns_table(columns: tuple[Column, ...]) -> list[str]:
    rows = [f"| `{c.name}` | {c.type}{', may be null' if c.nullable else ''} | {c.meaning} |" for c in columns]
    return ["| column | type | meaning |", "|---|---|---|", *rows]


def _settings(model: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{prefix}{name}", shown, (info.description or "").replace("|", "\\|")


def _help(command: tuple[str, ...]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    call = [sys.executable, "-m", "pseudoris_cli", *command, "--help"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    return re.sub(r"[ \t]+$", "", done.stdout, flags=re.MULTILINE).strip() + "\n"


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    artifacts = DOCS / "artifacts.md"
    artifacts.write_text(artifacts_page(artifacts.read_text(encoding="utf-8")), encoding="utf-8")
