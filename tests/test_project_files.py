"""The files around the code say what is there: links, tables of paths, CI, hooks, container, citation."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from locations import FIXTURES, REPOSITORY

PLUG_IN = FIXTURES / "example_plugin"
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".cff", ".sbatch"}
FOREIGN = ("tests/fixtures/coca", "tests/fixtures/cutler", "tests/fixtures/formats", "tests/fixtures/work")
"""Folders of data that others, or earlier versions, have made."""
REGISTRY_HOSTS = ("py" + "pi.org", "python" + "hosted", "gh" + "cr.io")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


@lru_cache(maxsize=1)
def files() -> tuple[Path, ...]:
    """Every text file of the repository, as git would take it in."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:  # an unpacked archive, not a clone
        names = [path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.rglob("*") if ".venv" not in path.parts]
    else:
        names = done.stdout.splitlines()
    wanted = [
        name for name in names if Path(name).suffix in TEXTS or Path(name).name in ("Makefile", "Dockerfile", "run")
    ]
    paths = [REPOSITORY / name for name in wanted if not name.startswith(FOREIGN)]
    return tuple(sorted(path for path in paths if path.is_file()))


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, no punctuation, hyphens; -1, -2 for repeats."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        repeats = sum(
            anchor == known or re.fullmatch(rf"{re.escape(anchor)}-\d+", known) is not None for known in found
        )
        found.add(f"{anchor}-{repeats}" if repeats else anchor)
    return found


def test_the_list_of_files_is_not_empty() -> None:
    """Guards the tests below, which would agree with everything."""
    names = {name_of(path) for path in files()}
    assert {"README.md", "docs/decisions/README.md", ".github/workflows/ci.yml", "Makefile", ".ci/run"} <= names
    assert len([path for path in pages() if "](" in path.read_text(encoding="utf-8")]) > 15


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            wrong.append(target)
    assert wrong == []


def test_no_file_speaks_of_a_page_that_is_not_here() -> None:
    """A reader can look up what a comment or a page refers to."""
    known = {path.name for path in pages()}
    wrong = [
        f"{name_of(path)}:{number}: {name}"
        for path in files()
        if path.name not in ("CHANGELOG.md", Path(__file__).name)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in re.findall(r"\b[A-Z][A-Z_]+\.md\b", line)
        if name not in known
    ]
    assert wrong == []


def test_no_file_names_the_host_of_a_registry() -> None:
    """Where packages come from is the business of whoever installs them."""
    wrong = [
        name_of(path) for path in files() if any(host in path.read_text(encoding="utf-8") for host in REGISTRY_HOSTS)
    ]
    assert wrong == []


# --- docs/architecture.md -------------------------------------------------------------------------------------------


def table_below(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def layers_of_the_test() -> list[set[str]]:
    tree = ast.parse((REPOSITORY / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS":
            return list(ast.literal_eval(node.value))
    raise AssertionError("tests/test_architecture.py has no LAYERS")


def test_the_layers_of_the_page_are_those_that_are_tested() -> None:
    rows = table_below(REPOSITORY / "docs" / "architecture.md", "Layers")
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    assert [set(re.findall(r"`([^`]+)`", row[1])) for row in rows] == layers_of_the_test()


def test_where_things_are() -> None:
    page = REPOSITORY / "docs" / "architecture.md"
    rows = table_below(page, "Where is ...?")
    assert len(rows) >= 20
    for question, where in rows:
        links = re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", where)
        assert links, question
        for name, target in links:
            assert (page.parent / target).exists(), f"{question} {target}"
            assert target.endswith(name.rstrip("/")) or Path(target).parent.name == name.rstrip("/"), (
                f"{name}: {target}"
            )


def test_the_way_of_a_part_names_files_that_exist() -> None:
    section = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = section.split("\n## How one part travels\n")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_]+/(?:[a-z_/]+\.py)?)`", section)
    assert len(named) > 12
    assert [name for name in named if not (REPOSITORY / "pseudoris_cli" / name).exists()] == []


# --- docs/extending.md ----------------------------------------------------------------------------------------------


def excerpts() -> list[tuple[str, str]]:
    """File and text of every block of docs/extending.md that begins with a comment naming a file of the example."""
    text = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    return re.findall(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_excerpts_on_the_page_are_parts_of_the_example() -> None:
    files_shown = {name for name, _ in excerpts()}
    assert files_shown == {
        "pyproject.toml",
        *(f"pseudoris_example/{name}.py" for name in ("captioner", "source", "export_format")),
    }
    for name, text in excerpts():
        assert f"\n{text}" in (PLUG_IN / name).read_text(encoding="utf-8"), f"{name} does not contain:\n{text}"


def test_the_example_declares_its_modules() -> None:
    groups = tomllib.loads((PLUG_IN / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert set(groups) == {"pseudoris.backends", "pseudoris.sources", "pseudoris.formats"}
    for modules in groups.values():
        for module in modules.values():
            assert (PLUG_IN / module.replace(".", "/")).with_suffix(".py").is_file()


# --- decisions, citation, versions ----------------------------------------------------------------------------------


def test_every_decision_is_in_the_index_and_has_its_headings() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    found = sorted(folder.glob("[0-9]*.md"))
    assert [path.name[:4] for path in found] == [f"{number:04d}" for number in range(1, len(found) + 1)]
    assert len(found) >= 9
    for path in found:
        text = path.read_text(encoding="utf-8")
        title, status = re.findall(r"\A# (\d{4}: .+)\n\nStatus: (.+)\.\n", text)[0]
        assert f"| [{path.name[:4]}]({path.name}) | {title[6:]} | {status} |" in index
        assert re.findall(r"^## (.+)$", text, re.MULTILINE)[:3] == ["Context", "Decision", "Consequences"], path.name


def test_the_citation_is_complete() -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "date-released", "license"} <= cited.keys()
    [paper] = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Yu", "Seo", "Son"]
    assert paper["year"] == 2024
    assert paper["identifiers"][0]["value"] == "arXiv:2407.07412"


def test_the_version_is_the_same_everywhere() -> None:
    from pseudoris_cli import __version__

    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert __version__ == project["version"] == str(cited["version"])
    headings = re.findall(r"^## (.+)$", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == f"{__version__} ({cited['date-released']})"


# --- CI, hooks, container -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in files() if path.suffix in (".yaml", ".yml", ".cff")], ids=name_of)
def test_yaml_parses(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None


def test_ci_runs_on_every_push_and_pull_request() -> None:
    workflow: dict[Any, Any] = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert {"push", "pull_request"} <= workflow[True].keys()  # YAML 1.1 reads the key `on` as a truth value
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    assert workflow["permissions"] == {"contents": "read"}
    commands = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make check", "make test"} <= set(commands)
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o111


def test_hooks_run_what_make_check_runs() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recipe = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[0]
    checked = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    configured = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in configured["repos"] for hook in repo["hooks"]]
    assert [hook["entry"] for hook in hooks] == checked
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}


def test_the_issue_form_has_what_a_form_needs() -> None:
    form = yaml.safe_load((REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 3
    assert all(field["attributes"]["label"] for field in fields)


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of every instruction of the Dockerfile; continued lines are joined, comments left out."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in joined]


def test_the_container_is_pinned_unprivileged_and_whole() -> None:
    """Nothing here builds it, so what can be read from it is checked; hadolint checks the rest where it is installed."""
    found = instructions()
    for name, arguments in found:
        if name == "FROM":
            assert re.match(r"python:3\.\d+(\.\d+)?-slim-[a-z]+( AS \w+)?$", arguments), arguments
            assert "latest" not in arguments
        if name in ("COPY", "ADD") and "--from" not in arguments:
            sources = shlex.split(arguments)[:-1]
            assert [source for source in sources if not (REPOSITORY / source).exists()] == []
            shipped = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
            assert [source for source in sources if f"!{source.removeprefix('./')}" not in shipped] == []
    last = dict(found)
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", last["USER"]), "a user by number, and not root"
    assert yaml.safe_load(last["ENTRYPOINT"]) == ["pseudoris"], "exec form, so that signals reach the command"
    order = [name for name, _ in found]
    assert order.index("USER") > max(number for number, name in enumerate(order) if name in ("RUN", "COPY"))
    installs = [arguments for name, arguments in found if name == "RUN" and "uv pip install" in arguments]
    assert any("--require-hashes -r requirements.lock" in command for command in installs)
    assert re.search(r"pip install uv==\d", " ".join(arguments for name, arguments in found if name == "RUN"))


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
