"""Head nouns by spaCy: by our rule on parts of speech, or as the release finds them, by the dependency parse."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.method import head_nouns
from pseudoris_cli.method.protocols import NounFinder
from pseudoris_cli.settings.models import BackendSettings, Numerics, added_later
from pseudoris_cli.settings.resources import PACKAGE, expanded
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_DEMO = PACKAGE / "demo" / "nouns"
_PACKAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_UNUSED = ("ner", "lemmatizer", "textcat", "senter")
_UNUSED_BY = {"mended": (*_UNUSED, "parser"), "released": _UNUSED}
_CACHED = 200_000


ROLE = "nouns"


class Settings(BackendSettings):
    """The spaCy pipeline that parses captions."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"pipeline"})  # `version` identifies it, wherever it lies

    backend: Literal["nouns"] = Field("nouns", description="who finds the noun of a caption")
    pipeline: str = Field(
        "en_core_web_lg", description="spaCy package or folder; `demo` for the embedded one; `blank` without parser"
    )
    rule: Literal["mended", "released"] = added_later(
        "mended",
        before="released",
        description="how the noun is found: for expressions of every form, or as the release does",
    )

    @classmethod
    def tiny(cls) -> Settings:
        return cls(pipeline="blank")


def load(settings: Settings, numerics: Numerics, device: str) -> SpacyNouns:
    """Open the pipeline; it always runs on the CPU.

    `blank` is English tokenisation without a parser: the noun of a caption is then the caption itself (tests, first
    looks). Raises MissingDependency (exit 3) with the command that gets a missing pipeline, UsageError (exit 2) for one
    that cannot be opened or lacks what the rule reads: parts of speech, or noun chunks.
    """
    import spacy

    if settings.pipeline == "blank":
        return SpacyNouns(spacy.blank("en"), "released")
    where = _locate(settings.pipeline)
    try:
        nlp = spacy.load(where, exclude=_UNUSED_BY[settings.rule])
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise UsageError(f"spaCy {spacy.__version__} cannot open the pipeline {str(where)!r}: {reason}") from error
    if settings.rule == "released" and not _finds_chunks(nlp):
        raise UsageError(f"the pipeline {str(where)!r} finds no noun chunks; filter.nouns.pipeline needs a parser")
    if settings.rule == "mended" and not nlp("a dog on the grass").has_annotation("POS"):
        raise UsageError(f"the pipeline {str(where)!r} tells no parts of speech; filter.nouns.pipeline needs a tagger")
    return SpacyNouns(nlp, settings.rule)


def version(settings: Settings) -> str:
    """What identifies the pipeline: package and number, or a digest of the folder. Does not import spaCy."""
    if settings.pipeline == "blank":
        return "blank"
    where = _locate(settings.pipeline)
    if isinstance(where, str):
        return f"{where} {metadata.version(where)}"
    digest = hashlib.sha256()
    for path in sorted(path for path in where.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(where).as_posix()} {weights.file_digest(path)}\n".encode())
    return digest.hexdigest()


def _locate(pipeline: str) -> str | Path:
    """An installed package by name, or a folder: the embedded one, the user's, or what `weights fetch` unpacked."""
    if pipeline == "demo":
        if not (_DEMO / "meta.json").is_file():
            raise MissingDependency(f"{_DEMO} is missing from this installation of pseudoris; install it again")
        return _DEMO
    folder = expanded(pipeline, "filter.nouns.pipeline")
    if (folder / "meta.json").is_file():
        return folder.absolute()
    if _PACKAGE_NAME.fullmatch(pipeline):
        try:
            metadata.version(pipeline)
            return pipeline
        except metadata.PackageNotFoundError:
            pass
    fetched = weights.pipeline_folder(pipeline)
    if fetched:
        return fetched
    registered = pipeline in weights.registry()
    command = f"pseudoris weights fetch {pipeline}" if registered else f"python -m spacy download {pipeline}"
    raise MissingDependency(
        f"the spaCy pipeline {pipeline!r} is not here: neither an installed package nor a folder with meta.json\n"
        f"get it with:  {command}\n"
        f"or, for a first look without it:  --set filter.nouns.pipeline=blank"
    )


def _finds_chunks(nlp: Language) -> bool:
    """Whether the pipeline parses, and its language defines noun chunks."""
    doc = nlp("a dog on the grass")
    try:
        next(doc.noun_chunks, None)
    except (ValueError, NotImplementedError):
        return False
    return True


class SpacyNouns(NounFinder):
    """A `NounFinder`: each distinct caption is parsed once."""

    def __init__(self, nlp: Language, rule: str, batch_size: int = 256) -> None:
        self._nlp = nlp
        self._rule = rule
        self._batch_size = batch_size
        self._known: dict[str, str] = {}

    def nouns(self, captions: Sequence[str]) -> list[str]:
        """The head noun of each caption by the rule; '' for an empty or blank one."""
        texts = [caption.strip() for caption in captions]
        fresh = [text for text in dict.fromkeys(texts) if text and text not in self._known]
        if len(self._known) + len(fresh) > _CACHED:  # keeps memory flat over millions of captions
            self._known.clear()
            fresh = [text for text in dict.fromkeys(texts) if text]
        for text, noun in zip(fresh, self._find(fresh), strict=True):
            self._known[text] = noun
        return [self._known[text] if text else "" for text in texts]

    def _find(self, texts: Sequence[str]) -> Iterator[str]:
        if self._rule == "released":
            return (head_noun(doc) for doc in self._nlp.pipe(texts, batch_size=self._batch_size))
        parsed = self._nlp.pipe((head_nouns.normalise(text) for text in texts), batch_size=self._batch_size)
        return (head_nouns.head_noun(doc) for doc in parsed)


def head_noun(doc: Doc) -> str:
    """The word that a caption is about: the root of the noun chunk that holds the first sentence's head.

    The head is the first token that is its own head. Where it lies in no chunk (a verb, say), its first child in text
    order decides; where that lies in no chunk either, or nothing was parsed, the answer is the text itself.
    Source: the released code's rule, which returns the chunk's root word, not the phrase.
    """
    if not doc.has_annotation("DEP"):
        return doc.text
    chunk_of: dict[int, Any] = {token.i: chunk for chunk in doc.noun_chunks for token in chunk}
    head = next((token for token in doc if token.head.i == token.i), None)
    if head is None:
        return doc.text
    if head.i not in chunk_of:
        head = next(head.children, None)
    if head is None or head.i not in chunk_of:
        return doc.text
    return chunk_of[head.i].root.text
