"""The rows of the page's tables as compact JSON. The columns depend on the stages that have run."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.report import summary
from pseudoris_cli.report.gather import Report, ShownCandidate, ShownImage
from pseudoris_cli.report.versions import SHOWN

Column = dict[str, Any]
"""`kind` decides how the page shows and sorts a column: mask, text, term (an index into the page's terms), number,
fraction (shown in per cent), bar (a number up to `max`), picked (a mask, or -1), verdict, or hidden."""


def _column(name: str, label: str, kind: str, title: str = "", digits: int = 3) -> Column:
    return {"id": name, "label": label, "kind": kind, "title": title, "digits": digits}


_MASK = _column("mask", "mask", "mask", "number of the mask in its image")
_CATEGORY = _column("category", "category", "term", "category of the object, where the masks have one")
_MASK_COLUMNS = (
    _MASK,
    _CATEGORY,
    _column("fraction", "area", "fraction", "fraction of the image"),
    _column("pixels", "pixels", "number", "area in pixels", 0),
    _column("predicted_iou", "predicted IoU", "number", "SAM's own estimate"),
    _column("stability", "stability", "number", "SAM's stability score"),
    _column("detector", "detection", "number", "score of the detection"),
    _column("match", "match IoU", "number", "IoU of the detection and this mask"),
)
_CAPTION_COLUMNS = (
    _MASK,
    _column("caption", "caption", "text", "×n: n candidates of this mask have this text"),
    _column("duplicates", "", "hidden"),
    _column("candidate", "", "hidden"),
)
_SCORE_COLUMNS = (
    _column("doc", "DoC", "bar", "distinctiveness of caption"),
    _column("uniqueness", "uniqueness", "bar", "similarity over the largest to another mask"),
    _column("correctness", "correctness", "bar", "cosine of the masked crop and the noun prompt"),
    _column("flags", "", "hidden"),
)
_LISTENER_COLUMNS = (
    _column("listener", "listener", "bar", "probability that the listener, shown every mask, picks this one"),
    _column("choice", "picks", "picked", "what the listener picks: this mask, another, none or several"),
)
_VERDICT = _column("verdict", "verdict", "verdict", "kept, or the first rule that it failed")
_NOUN = _column("noun", "noun", "term", "head noun")
_PROVENANCE_COLUMNS = (
    _column("crop", "crop", "term", "what the captioner saw"),
    _column("sampler", "sampler", "term", "how the words were drawn"),
    _column("logprob", "log p", "number", "sum of the own log probabilities", 1),
)


class PageRows:
    """Columns and rows of the tables of a report. Repeated texts are stored once, in a list of terms."""

    def __init__(self, report: Report) -> None:
        self.report = report
        reached = SHOWN.index(report.deepest)
        self.has_candidates = reached >= SHOWN.index("captions")
        self.has_scores = reached >= SHOWN.index("scores")
        self.has_categories = any(mask.category for image in report.images for mask in image.masks)
        self.is_filtered = report.deepest == "filter"
        self.is_judged = report.is_judged
        self.columns = self._columns()
        self._terms: dict[str, int] = {}

    def _columns(self) -> list[Column]:
        if not self.has_candidates:
            return [column for column in _MASK_COLUMNS if column is not _CATEGORY or self.has_categories]
        columns: list[Column] = list(_CAPTION_COLUMNS)
        if self.has_scores:
            columns += [self._with_span(column) for column in _SCORE_COLUMNS]
        if self.is_judged:
            columns += [self._with_span(column) for column in _LISTENER_COLUMNS]
        if self.is_filtered:
            columns.append(_VERDICT)
        if self.has_scores:
            columns.append(_NOUN)
        return [*columns, *_PROVENANCE_COLUMNS]

    def _with_span(self, column: Column) -> Column:
        """A bar column with the value that fills the bar: 2 for a ratio (1 is neutral), the end of its histogram for a cosine."""
        name = column["id"]
        if column["kind"] != "bar":
            return column
        if name == "listener":
            return column | {"max": 1.0, "mark": summary.setting(self.report, "min_listener")}
        if name != "correctness":
            return column | {"max": 2.0, "mark": summary.threshold(self.report) if name == "doc" else 1.0}
        histogram = self.report.totals.histograms.get(name)
        return column | {"max": max(histogram.edges[-1], 0.01) if histogram else 1.0, "mark": None}

    def of(self, image: ShownImage) -> list[list[Any]]:
        """The rows of an image: masks in order, the best candidates of each first."""
        if not self.has_candidates:
            return [
                [
                    mask.mask_id,
                    *([self._term(mask.category[1] if mask.category else "")] if self.has_categories else []),
                    round(mask.area / (mask.rle.width * mask.rle.height), 5),
                    mask.area,
                    *map(_short, (mask.predicted_iou, mask.stability_score, mask.detector_score, mask.match_iou)),
                ]
                for mask in image.masks
            ]
        return [self._row(candidate) for candidate in sorted(image.candidates, key=_rank)]

    def _row(self, candidate: ShownCandidate) -> list[Any]:
        row: list[Any] = [candidate.mask_id, candidate.caption, candidate.duplicates, candidate.candidate_id]
        if self.has_scores:
            row += map(_short, (candidate.doc, candidate.uniqueness, candidate.correctness))
            row.append(self._term(candidate.flags))
        if self.is_judged:
            row += [_short(candidate.listener), candidate.choice]
        if self.is_filtered:
            by_hand = candidate.kept and candidate.reason
            row.append(self._term(f"kept {candidate.reason}" if by_hand else candidate.reason))
        if self.has_scores:
            row.append(self._term(candidate.noun))
        return [*row, self._term(candidate.crop), self._term(candidate.sampler), round(candidate.logprob, 2)]

    def _term(self, text: str) -> int:
        return self._terms.setdefault(text, len(self._terms))

    def page_data(self) -> dict[str, Any]:
        """The values that all tables use. Call it after `of` has been called for every image: rows add terms."""
        return {
            "columns": self.columns,
            "terms": list(self._terms),
            "filtered": self.is_filtered,
            "work": self.report.work,
            "versions": {made.stage: made.version for made in self.report.stages},
            "flags": {term: meaning for term in self._terms if (meaning := summary.flags(term))},
            "reasons": {term: list(told) for term in self._terms if (told := summary.reason(term))},
        }


def _rank(candidate: ShownCandidate) -> tuple[Any, ...]:
    """Mask by mask; kept before dropped, then by DoC, else correctness, else log probability."""
    score = next((v for v in (candidate.doc, candidate.correctness) if v is not None), candidate.logprob)
    return candidate.mask_id, not candidate.kept, candidate.reason == "duplicate", -score, candidate.candidate_id


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
