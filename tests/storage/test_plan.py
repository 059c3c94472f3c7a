"""The plan: appended, never recut, each image once."""

from __future__ import annotations

import tempfile
import threading
import time
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage import files
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.storage.plan import Plan


def refs(*names: str) -> list[ImageRef]:
    return [ImageRef(name, number, name) for number, name in enumerate(names)]


def keys(plan: Plan) -> list[list[str]]:
    return [[ref.key for ref in plan.images(part.part)] for part in plan.parts]


def test_growth_adds_parts_and_recuts_none(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan.jsonl")
    assert plan.extend(refs("a", "b", "c"), 2) == 3
    assert plan.extend(refs("a", "b", "c"), 2) == 0
    assert plan.extend(refs("0", "a", "b", "c", "d", "e"), 2) == 3
    assert keys(plan) == keys(Plan(tmp_path / "plan.jsonl")) == [["a", "b"], ["c"], ["0", "d"], ["e"]]
    assert plan.image_count == 6


def test_who_does_not_lead_plans_only_where_there_is_no_plan(tmp_path: Path) -> None:
    plan, other = Plan(tmp_path / "plan.jsonl"), Plan(tmp_path / "plan.jsonl")
    assert plan.extend(refs("a", "b"), 2, leader=False) == 2
    unasked = iter(refs("a", "b", "c"))
    assert other.extend(unasked, 2, leader=False) == 0
    assert len(list(unasked)) == 3, "the source is not listed again"
    assert keys(other) == [["a", "b"]]
    assert other.extend(refs("a", "b", "c"), 2) == 1


def test_a_key_listed_twice_is_planned_once_with_its_first_id(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan.jsonl")
    plan.extend([ImageRef("a", 1, "a"), ImageRef("a", 2, "other"), ImageRef("b", 3, "B.jpg")], 8)
    assert plan.images(0) == [ImageRef("a", 1, "a"), ImageRef("b", 3, "B.jpg")]


def test_a_limit_counts_what_is_planned_already(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan.jsonl")
    names = refs(*"abcdefg")
    assert plan.extend(names, 2, limit=3) == 3
    assert plan.extend(names, 2, limit=3) == 0
    assert plan.extend(names, 2, limit=2) == 0
    assert plan.extend(names, 2) == 4
    assert keys(plan) == [["a", "b"], ["c"], ["d", "e"], ["f", "g"]]


@given(cut=st.integers(0, 400))
def test_a_torn_plan_grows_to_the_same_plan(ram: Path, cut: int) -> None:
    path = Path(tempfile.mkdtemp(dir=ram)) / "plan.jsonl"
    names = refs(*(f"{n}.png" for n in range(11)))
    Plan(path).extend(names, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    Plan(path).extend(names, 3)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["nonsense", '{"part": 0, "images": []}', '{"part": 1}', '{"part": 7, "images": []}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "plan.jsonl"
    Plan(path).extend(refs("a", "b"), 1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[1]]) + "\n")
    with pytest.raises(EnvironmentStop, match=r"plan.jsonl is damaged at byte \d+ \(part 1 was expected there\)"):
        Plan(path)


def test_planners_that_start_together_wait_for_each_other(tmp_path: Path) -> None:
    """The shards of a job array all plan at their start; none may fail for that."""
    path = tmp_path / "plan.jsonl"
    plan = Plan(path)

    def plan_first() -> None:
        with exclusive(tmp_path / "plan.lock", "planning"):
            started.set()
            time.sleep(0.3)
            with FileIO(path, "ab") as file:
                files.append_line(file, {"part": 0, "images": [["b", 1]]})

    started = threading.Event()
    thread = threading.Thread(target=plan_first)
    thread.start()
    started.wait()
    plan.extend(refs("a", "b"), 2)
    thread.join()
    assert keys(plan) == keys(Plan(path)) == [["b"], ["a"]]
