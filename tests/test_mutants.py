"""The list of explained mutants stays true to the code: each entry names a function that is there and text that is in it."""

from __future__ import annotations

import ast
import tomllib
from typing import Any

import pytest
from locations import REPOSITORY

LISTED: list[dict[str, Any]] = tomllib.loads(
    (REPOSITORY / "benchmarks" / "mutants_explained.toml").read_text(encoding="utf-8")
)["mutant"]


def source_of(module: str, function: str) -> str | None:
    """The text of a function or method (`Class.method`; "" for the whole module), on one line; None if there is none."""
    text = (REPOSITORY / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    node: ast.AST | None = ast.parse(text)
    for name in filter(None, function.split(".")):
        node = next((n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == name), None) if node else None
    if node is None:
        return None
    return " ".join((text if isinstance(node, ast.Module) else ast.get_source_segment(text, node) or "").split())


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{entry['module']}:{entry['function']}")
def test_every_entry_is_about_code_that_is_there(entry: dict[str, Any]) -> None:
    assert entry.keys() - {"line"} == {"module", "function", "kind", "changes", "why"}
    assert entry["kind"] in ("equivalent", "accepted")
    assert len(entry["why"]) > 20
    text = source_of(entry["module"], entry["function"])
    assert text is not None, "no such function"
    assert entry.get("line", "") in text
    for change in entry["changes"]:
        before, arrow, after = change.partition(" -> ")
        assert arrow
        assert before != after
        assert before in text


def test_no_change_is_listed_twice() -> None:
    places = [(entry["module"], entry["function"], entry.get("line", "")) for entry in LISTED]
    listed = [(place, change) for place, entry in zip(places, LISTED, strict=True) for change in entry["changes"]]
    assert len(listed) == len(set(listed))
