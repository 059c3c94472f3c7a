"""The table of stages: what each reads comes from a stage above it, and the chain has no gap."""

from __future__ import annotations

import pytest
from locations import REPOSITORY

from pseudoris_cli.storage.schema import COLUMNS
from pseudoris_cli.storage.stage_table import FIRST, NAMES, STAGES, commands, stage, stages_of, upstream_of


def test_a_stage_reads_only_what_was_made_before_it() -> None:
    for number, row in enumerate(STAGES):
        assert set(row.reads) <= set(NAMES[:number]), row.name
        assert bool(row.reads) == (row.name != FIRST), "only the first stage reads the source and no rows"


def test_every_stage_has_columns_and_a_unit_in_words() -> None:
    assert COLUMNS.keys() == set(NAMES)
    for row in STAGES:
        assert row.columns == COLUMNS[row.name]
        assert row.unit in ("masks", "captions", "scores", "answers", "sentences")


def test_the_commands_cover_the_stages_in_order() -> None:
    assert [row.name for command in commands() for row in stages_of(command)] == list(NAMES)
    assert commands() == ("masks", "captions", "filter", "export")


def test_a_stage_is_made_from_the_nearest_above_it() -> None:
    assert [upstream_of(name, NAMES) for name in NAMES] == [None, *NAMES[:-1]]
    assert upstream_of("filter") == "scores", "no run lacks the scores; only some have a judge"
    assert upstream_of("filter", {"masks", "captions"}) == "captions"
    assert upstream_of("filter", ()) is None
    assert upstream_of(FIRST, NAMES) is None


def test_another_name_is_no_stage() -> None:
    with pytest.raises(KeyError, match="nothing"):
        stage("nothing")


def test_every_stage_has_its_file() -> None:
    folder = REPOSITORY / "pseudoris_cli" / "stages"
    assert [row.name for row in STAGES if not (folder / f"{row.file}.py").is_file()] == []
