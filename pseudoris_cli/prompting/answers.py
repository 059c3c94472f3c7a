"""From the text of an answer to expressions: JSON as asked for, or what models write instead of it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pseudoris_cli.prompting.prompts import KINDS

LONGEST = 300
"""Characters of an expression, at most; what is longer is no expression."""

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_ENTRY = re.compile(r'"(?:text|expression)"\s*:\s*"((?:[^"\\]|\\.)*)"(?:\s*,\s*"(?:kind|type)"\s*:\s*"(\w*)")?')
_LINE = re.compile(r"\s*(?:\(?\d{1,2}\s*[.):]|[-*•–—]|\[\d{1,2}\])\s*(\S.*)")
_KIND_BEFORE = re.compile(rf"\s*[(\[*_]*({'|'.join(KINDS)})[)\]*_]*\s*[:\-–—]\s*", re.IGNORECASE)
_KIND_AFTER = re.compile(rf"\s*[(\[]\s*({'|'.join(KINDS)})\s*[)\]]\s*\.?\s*$", re.IGNORECASE)
_QUOTES = "\"'`“”„«»‘’"
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression and what tells its object apart: one of prompts.KINDS."""

    text: str
    kind: str = "other"


def parse(answer: str) -> list[Expression]:
    """The expressions of an answer in its order, duplicates kept; [] where there are none.

    Accepted are the JSON asked for and its relatives (a bare list, plain strings, Python's quotes, a fence or words around it, an
    end that is cut off), and lines that are numbered or have bullets. Prose without either is no answer.
    """
    answer = without_thoughts(answer)
    for text in (*(match[1] for match in _FENCED.finditer(answer)), answer):
        value = _json_within(text)
        if value is not None and (found := list(_from_json(value))):
            return found
    if entries := _ENTRY.findall(answer):
        return [expression for text, kind in entries if (expression := _expression(_unescaped(text), kind))]
    return [expression for line in answer.splitlines() if (expression := _from_line(line))]


def without_thoughts(answer: str) -> str:
    """An answer without what a model wrote for itself before it."""
    return _THOUGHT.sub("", answer)


def _json_within(text: str) -> Any:
    """The first JSON object or list in a text, also with Python's quotes or a comma too many; None if there is none."""
    starts = [start for start in (text.find("{"), text.find("[")) if start >= 0]
    if not starts:
        return None
    start = min(starts)
    end = text.rfind("}" if text[start] == "{" else "]")
    body = text[start : end + 1]
    for candidate in (body, re.sub(r",\s*([}\]])", r"\1", body)):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            pass
    try:
        value = json.JSONDecoder(strict=False).raw_decode(text[start:])[0]  # the words after it hold a bracket, say
        if isinstance(value, list) or any(isinstance(item, list) for item in value.values()):
            return value  # or else it is one entry of several
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(body)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _from_json(value: Any) -> Iterator[Expression]:
    if isinstance(value, dict):
        listed = next(
            (value[name] for name in ("expressions", "referring_expressions", "captions") if name in value), None
        )
        if listed is None:
            listed = next((item for item in value.values() if isinstance(item, list)), [value])
        value = listed
    for item in value if isinstance(value, list | tuple) else ():
        if isinstance(item, str):
            expression = _expression(item, "")
        elif isinstance(item, dict):
            text = next((item[name] for name in ("text", "expression", "caption", "phrase") if name in item), None)
            expression = _expression(text, item.get("kind", item.get("type", ""))) if isinstance(text, str) else None
        else:
            expression = None
        if expression:
            yield expression


def _from_line(line: str) -> Expression | None:
    match = _LINE.fullmatch(line.rstrip())
    if not match:
        return None
    text, kind = match[1], ""
    for pattern in (_KIND_BEFORE, _KIND_AFTER):
        if found := pattern.match(text) if pattern is _KIND_BEFORE else pattern.search(text):
            kind, text = found[1].lower(), text[: found.start()] + text[found.end() :]
    return _expression(text, kind)


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _expression(text: str, kind: Any) -> Expression | None:
    """Tidied: one line, without the quotes, emphasis and full stop around it; None if nothing is left or it is no phrase."""
    text = " ".join(_NO_TEXT.sub(" ", text).split())
    before = None
    while before != text:
        before = text
        text = text.strip().strip("*_").strip(_QUOTES).removesuffix(".").removesuffix(",").strip()
    if not any(letter.isalpha() for letter in text) or len(text) > LONGEST:
        return None
    kind = kind.strip().lower() if isinstance(kind, str) else ""
    return Expression(text, kind if kind in KINDS else "other")
