"""The release's head-noun rule on hand-annotated parses, and the pipeline around both rules."""

import subprocess
import sys

import pytest
import spacy
from spacy.tokens import Doc

from pseudoris_cli.backends import nouns
from pseudoris_cli.backends.nouns import Settings, SpacyNouns, head_noun
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.models import Numerics

VOCAB = spacy.blank("en").vocab


def parse(*tokens: tuple[str, int, str, str]) -> Doc:
    """A document from (word, index of its head, dependency, part of speech)."""
    words, heads, deps, pos = (list(column) for column in zip(*tokens, strict=True))
    spaces = [True] * (len(words) - 1) + [False]
    return Doc(VOCAB, words=words, spaces=spaces, heads=heads, deps=deps, pos=pos)


DOG = parse(
    ("a", 2, "det", "DET"),
    ("brown", 2, "amod", "ADJ"),
    ("dog", 2, "ROOT", "NOUN"),
    ("on", 2, "prep", "ADP"),
    ("the", 5, "det", "DET"),
    ("grass", 3, "pobj", "NOUN"),
)
HYDRANT = parse(("a", 2, "det", "DET"), ("fire", 2, "compound", "NOUN"), ("hydrant", 2, "ROOT", "NOUN"))
RIDING = parse(
    ("the", 1, "det", "DET"),
    ("man", 3, "nsubj", "NOUN"),
    ("is", 3, "aux", "AUX"),
    ("riding", 3, "ROOT", "VERB"),
    ("a", 5, "det", "DET"),
    ("horse", 3, "dobj", "NOUN"),
)
THERE_IS = parse(
    ("there", 1, "expl", "PRON"), ("is", 1, "ROOT", "VERB"), ("a", 3, "det", "DET"), ("dog", 1, "attr", "NOUN")
)
RUNNING = parse(("running", 0, "ROOT", "VERB"), ("fast", 0, "advmod", "ADV"))
LONE_VERB = parse(("running", 0, "ROOT", "VERB"))
TWO_SENTENCES = parse(
    ("dogs", 0, "ROOT", "NOUN"), (".", 0, "punct", "PUNCT"), ("a", 3, "det", "DET"), ("cat", 3, "ROOT", "NOUN")
)
PART = parse(  # the head is a chunk's root, whatever else hangs on it
    ("part", 0, "ROOT", "NOUN"), ("of", 0, "prep", "ADP"), ("a", 3, "det", "DET"), ("bus", 1, "pobj", "NOUN")
)


@pytest.mark.parametrize(
    ("doc", "noun"),
    [
        (DOG, "dog"),
        (HYDRANT, "hydrant"),
        (RIDING, "man"),
        (THERE_IS, "there is a dog"),  # the first child lies in no chunk, though a later one does
        (RUNNING, "running fast"),
        (LONE_VERB, "running"),
        (TWO_SENTENCES, "dogs"),
        (PART, "part"),
    ],
    ids=lambda value: value.text if isinstance(value, Doc) else None,
)
def test_head_noun(doc: Doc, noun: str) -> None:
    assert head_noun(doc) == noun


def test_without_a_parse_the_text_is_the_noun() -> None:
    assert head_noun(spacy.blank("en")("a brown dog")) == "a brown dog"
    assert head_noun(Doc(VOCAB, words=[])) == ""


class Parser:
    """Stands for a pipeline; remembers what it was asked to parse."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.calls = 0
        self.nlp = spacy.blank("en")

    def pipe(self, texts, batch_size):
        self.calls += 1
        texts = list(texts)
        self.asked += texts
        return self.nlp.pipe(texts, batch_size=batch_size)


def test_each_distinct_text_is_parsed_once() -> None:
    parser = Parser()
    finder = SpacyNouns(parser, "released")
    assert finder.nouns(["a dog", "  ", "two cats ", "a dog", ""]) == ["a dog", "", "two cats", "a dog", ""]
    assert finder.nouns(["two cats", "ein Hund", "犬"]) == ["two cats", "ein Hund", "犬"]
    assert parser.asked == ["a dog", "two cats", "ein Hund", "犬"]
    assert parser.calls == 2


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_CACHED", 3)
    finder = SpacyNouns(Parser(), "released")
    for round_ in range(4):
        texts = ["dog", f"cat {round_}", f"cow {round_}"]
        assert finder.nouns(texts) == texts
    assert len(finder._known) <= 3


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def version(name: str) -> str:
        raise nouns.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(nouns.metadata, "version", version)
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path / "weights"))


@pytest.mark.parametrize(
    ("pipeline", "command"),
    [
        ("en_core_web_lg", "pseudoris weights fetch en_core_web_lg"),
        ("en_core_web_trf", "python -m spacy download en_core_web_trf"),
    ],
)
def test_missing_pipeline_names_the_command(no_packages, pipeline: str, command: str) -> None:
    for ask in (lambda s: nouns.load(s, Numerics(), "cpu"), nouns.version):
        with pytest.raises(MissingDependency, match=command) as caught:
            ask(Settings(pipeline=pipeline))
        assert caught.value.exit_code == 3


def test_pipeline_without_parser_is_refused(tmp_path) -> None:
    spacy.blank("en").to_disk(tmp_path / "plain")
    for rule, need in (("released", "needs a parser"), ("mended", "needs a tagger")):
        with pytest.raises(UsageError, match=need):
            nouns.load(Settings(pipeline=str(tmp_path / "plain"), rule=rule), Numerics(), "cpu")


def test_broken_pipeline_is_refused(tmp_path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot open"):
        nouns.load(Settings(pipeline=str(tmp_path)), Numerics(), "cpu")


def test_version_follows_the_content_not_the_place(tmp_path) -> None:
    for name in ("one", "two"):
        spacy.blank("en").to_disk(tmp_path / name)
    first, second = (nouns.version(Settings(pipeline=str(tmp_path / name))) for name in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "more").write_text("x")
    assert nouns.version(Settings(pipeline=str(tmp_path / "two"))) != first
    assert nouns.version(Settings.tiny()) == "blank"
    assert "pipeline" in Settings.NO_RESULT


def test_blank_pipeline() -> None:
    assert nouns.load(Settings.tiny(), Numerics(), "cpu").nouns(["a dog runs", ""]) == ["a dog runs", ""]


def test_identifying_imports_neither_torch_nor_spacy() -> None:
    code = (
        "import sys; from pseudoris_cli.backends import clip, nouns; clip.Settings();"
        "nouns.version(nouns.Settings.tiny());"
        "sys.exit(any(name in sys.modules for name in ('torch', 'spacy', 'open_clip')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("rule", ["mended", "released"])
def test_embedded_pipeline_finds_the_shape(rule: str) -> None:
    finder = nouns.load(Settings(pipeline="demo", rule=rule), Numerics(), "cpu")
    captions = ["a red circle", "the small striped orange heart", "a large plain blue star", "a dotted square"]
    assert finder.nouns(captions) == ["circle", "heart", "star", "square"]
    assert len(nouns.version(Settings(pipeline="demo"))) == 64
