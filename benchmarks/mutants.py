"""Faults put into the code one by one: which of them do the tests notice? `make mutants`, or

    python benchmarks/mutants.py [--minutes 20] [--folders method storage ...] [--again] [--skip 170]

The faults are those of mutmut (`pip install --no-deps mutmut==3.8.1 libcst==1.9.0`). Its runner skips decorated functions
(context managers, properties) and writes trampolines into a copy of the package, so only its mutations are used, and run
here: tests are collected once, and every mutant is tried in a fork of that process, in which the code of the one function is
replaced, on the tests that call this function, the quick ones first, until one fails. What tests do in processes of their
own counts for nothing. Left out are messages (`raise`, `log`), texts in another case, class bodies, default values, and the
arguments `strict`, `encoding`, `newline` and `device`; constants of modules are included.

Mutants are tried in the order of a hash, so that those of any time box are a fair sample. Results are kept in `.mutants/`
and taken up by the next run; survivors are tried again. `mutants_explained.toml` lists those that are equivalent or not
worth a test. Tests that were mended for a sample pass on it by nature: `--skip N` leaves the first N of each folder out, and
so judges the tests by mutants that they were not written for.
"""

from __future__ import annotations

import argparse
import os
import sys

import pytest
from mutant_trials import Trials
from mutations import ROOT, Mutant, explained, mutants_of

_SPINE = ["tests/execution/test_runner.py", "tests/storage", "tests/robustness/test_spine_properties.py"]
FOLDERS = {
    "method": ["tests/method"],
    "decoding": [
        f"tests/decoding/{path.name}"
        for path in sorted((ROOT / "tests" / "decoding").glob("test_*.py"))
        if "parity" not in path.name
    ],
    "storage": [*_SPINE, "tests/stages"],
    "export": ["tests/export", "tests/test_dataset.py", "tests/stages"],
    "prompting": ["tests/prompting"],
    "evaluation": ["tests/evaluation"],
    "execution/backlog.py": ["tests/execution/test_backlog.py", *_SPINE, "tests/stages"],
}
"""Folders and files of pseudoris_cli, and the tests that are theirs; the comparisons with recordings take too long."""


def report(mutants: list[Mutant], verdicts: dict[str, str]) -> None:
    """One line per folder; the share is that of the mutants that are not equivalent, so accepted ones count as survivors."""
    print("\n| folder | mutants | tried | killed | survived | accepted | equivalent | killed of the not equivalent |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in FOLDERS:
        own = [m for m in mutants if m.folder == folder]
        tried = [m for m in own if not verdicts.get(m.id, "no change").startswith("no change")]
        left = [explained(m) for m in tried if not verdicts[m.id].startswith("killed")]
        killed, same = len(tried) - len(left), left.count("equivalent")
        counts = (len(own), len(tried), killed, left.count(None), left.count("accepted"), same)
        share = f"{killed / (len(tried) - same):.1%}" if len(tried) > same else "-"
        print(f"| {folder} | {' | '.join(map(str, counts))} | {share} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS), choices=list(FOLDERS))
    parser.add_argument("--again", action="store_true", help="only try the known survivors again")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many mutants of each folder")
    options = parser.parse_args()
    os.chdir(ROOT)
    ranked = []
    for folder in options.folders:
        place = ROOT / "pseudoris_cli" / folder
        paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
        ranked += enumerate(
            sorted((m for path in paths for m in mutants_of(folder, path)), key=lambda m: m.id)[options.skip :]
        )
    mutants = [mutant for _, mutant in sorted(ranked, key=lambda pair: pair[0])]  # as many of each folder
    tests = sorted({test for folder in options.folders for test in FOLDERS[folder] if (ROOT / test).exists()})
    trials = Trials(mutants, FOLDERS, options.minutes, options.again)
    pytest.main([*tests, "-s", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"], plugins=[trials])
    report(mutants, trials.verdicts)
    sys.stdout.flush()
    os._exit(0)  # without the last words of compiled packages, which complain of the forks


if __name__ == "__main__":
    main()
