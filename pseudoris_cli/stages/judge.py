"""Stage 3b, optional: a listener who is shown every object is asked which one each candidate means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, LoadedImage, PartInput, PartResult
from pseudoris_cli.method.listening import Answer, Judge, asked
from pseudoris_cli.method.protocols import PartAtWork, PartListener
from pseudoris_cli.records import CaptionCandidate, Failure, MaskedImage
from pseudoris_cli.settings.models import NO_BACKEND, FilterSettings, JudgeSettings, Settings, versioned
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.stages.served import SCENES, ServedStage, committed, scene_digest
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.rows import join, masks_by_image, optional_float, rows_of_images
from pseudoris_cli.storage.schema import Columns

NAME = "judge"
REVISION = 1
_SELECTION = ("min_doc", "min_words", "max_words", "one_mask_half")
"""The settings of the filter that decide who is asked."""


def is_wanted(settings: Settings) -> bool:
    """Whether there is a listener."""
    return settings.filter.judge.backend != NO_BACKEND


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    chosen, judge = settings.filter, judge_settings(settings)
    selection = versioned(chosen, include=set(_SELECTION))
    if judge.min_doc is not None:
        selection.pop("min_doc")
    content = {
        "revision": REVISION,
        "settings": selection | {"judge": backends.results_of(judge)},
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {"judge": backends.identify(judge, "filter.judge")},
    }
    if judge.RUNS_ELSEWHERE:
        content.pop("numerics")
    return content


def judge_settings(settings: Settings) -> JudgeSettings:
    """The settings of the listener."""
    judge = settings.filter.judge
    assert isinstance(judge, JudgeSettings), "select_backend sees to it"
    return judge


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage, ready to load its networks."""
    return Spec(make_context(), settings.filter, judge_settings(settings))


@dataclass(frozen=True)
class Spec(ServedStage):
    """The judge stage."""

    settings: FilterSettings
    judge: JudgeSettings
    name: ClassVar[str] = NAME

    @property
    def backend(self) -> JudgeSettings:
        """The listener."""
        return self.judge

    def make_worker(self) -> JudgeWorker:
        """Load the listener; the scorer only once an image has more masks than are shown."""
        device = "elsewhere" if self.runs_elsewhere else self.context.device.resolve()
        listener = backends.load(self.judge, self.context.numerics, device)
        if isinstance(listener, PartListener):
            self._check_resolved(listener)
        return JudgeWorker(self, Judge(listener, self.judge, _Likeness(self)))

    def _check_resolved(self, listener: PartListener) -> None:
        """UsageError (exit 2) if other parts of the version were asked in another way: their answers do not compare."""
        if self.place is None:
            return
        for entry in Manifest(self.place[0]).entries.values():
            before = entry.notes.get("resolved", listener.resolved)
            if different := [name for name, value in listener.resolved.items() if before.get(name) != value]:
                name = different[0]
                raise UsageError(
                    f"the other parts of this version were judged with {name} {before.get(name)}, and this server is asked by "
                    f"{name} {listener.resolved[name]}; say which: --set filter.judge.{name}={before.get(name)}, or another (it "
                    "makes another version)"
                )


class JudgeWorker:
    """The listener on the candidates of the stage before. A server is not asked again what the part's earlier state tells."""

    def __init__(self, spec: Spec, judge: Judge) -> None:
        self.spec, self.judge = spec, judge

    def run(self, part: PartInput) -> PartResult:
        """An answer for every candidate of a part that is asked, null for the others; then texts that fit nothing."""
        listener = self.judge.listener
        if not isinstance(listener, PartListener):
            return self._run(part, _Earlier())
        at_work = PartAtWork(self.spec.journal)
        with listener.part(at_work):
            result = self._run(part, _Earlier(*committed(self.spec.place, part.task.part)))
        result.notes |= at_work.notes | {"resolved": dict(listener.resolved)}
        return _with_failures(result)

    def _run(self, part: PartInput, earlier: _Earlier) -> PartResult:
        columns = join(part.columns["captions"], part.columns["scores"])
        masks = masks_by_image(part.columns["masks"])
        candidates: dict[str, list[tuple[CaptionCandidate, bool]]] = {}
        for key, mask_id, number, caption, ask in zip(
            *(columns[name] for name in ("image_key", "mask_id", "candidate_id", "caption")),
            asked(columns, self.spec.settings, self.judge.settings),
            strict=True,
        ):
            candidates.setdefault(key, []).append((CaptionCandidate(int(mask_id), int(number), caption), bool(ask)))
        others = _Others(candidates, self.judge.settings)
        counts = {"asked": 0, "answered": 0, "picked": 0, "none": 0}

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            images = [MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key]) for image in batch]
            for loaded, image in zip(batch, images, strict=True):
                earlier.look_at(image, loaded.sha256)
            wanted = [[one for one, ask in candidates.get(image.key, []) if ask] for image in images]
            answers = earlier.completed(self.judge, images, wanted)
            foreign = [others.of(image.key) for image in images]
            nothing = self.judge.fits_nothing(images, foreign) if any(foreign) else [[] for _ in images]
            for one, of_image in zip(wanted, answers, strict=True):
                _count(counts, one, of_image)
            return [
                ImageResult(
                    _rows(image.key, candidates.get(image.key, []), of_image)
                    + _no_target_rows(image.key, texts, verdicts)
                )
                for image, of_image, texts, verdicts in zip(images, answers, foreign, nothing, strict=True)
            ]

        halving = {"questions_halved": self.judge.listener}
        result = run_batches(part, self.judge.settings.image_batch, work, NAME, ("listener",), halving)
        result.notes["judge"] = counts
        if earlier.scenes:
            result.notes[SCENES] = earlier.scenes
        return result


class _Earlier:
    """The answers of a part's earlier state, taken over for images and masks that are as they were; none by default."""

    def __init__(self, columns: Columns | None = None, notes: dict[str, Any] | None = None) -> None:
        self._notes_scenes = columns is not None
        self._before = (notes or {}).get(SCENES, {})
        self._known: dict[str, dict[tuple[int, str], Answer]] = {}
        self.scenes: dict[str, str] = {}
        for row in rows_of_images(columns or {}):
            if (answer := _answer_of(row)).choice is not None:
                self._known.setdefault(row["image_key"], {})[int(row["mask_id"]), row["caption"]] = answer

    def look_at(self, image: MaskedImage, sha256: str) -> None:
        """Note what an image and its masks are now; answers about others are forgotten."""
        if self._notes_scenes:
            self.scenes[image.key] = digest = scene_digest(sha256, image)
            if self._before.get(image.key) != digest:
                self._known.pop(image.key, None)

    def completed(
        self, judge: Judge, images: Sequence[MaskedImage], wanted: Sequence[Sequence[CaptionCandidate]]
    ) -> list[list[Answer]]:
        """An answer for each wanted candidate of each image; the listener is asked for what is not known."""
        known = [self._known.get(image.key, {}) for image in images]
        new = [
            [one for one in of_image if (one.mask_id, one.caption) not in before]
            for of_image, before in zip(wanted, known, strict=True)
        ]
        heard = [iter(answers) for answers in judge.answers(images, new)]
        return [
            [before.get((one.mask_id, one.caption)) or next(given) for one in of_image]
            for of_image, before, given in zip(wanted, known, heard, strict=True)
        ]


def _answer_of(row: dict[str, Any]) -> Answer:
    """From the columns of the judge artifact, in which null numbers are NaN too."""
    choice = optional_float(row["listener_choice"])
    lists = [row.get(name) for name in ("listener_targets", "listener_shown")]
    targets, shown = (None if ids is None else tuple(int(one) for one in ids) for ids in lists)
    return Answer(
        listener=optional_float(row["listener"]),
        best_other=optional_float(row["listener_best_other"]),
        none=optional_float(row["listener_none"]),
        choice=None if choice is None else int(choice),
        targets=targets,
        shown=shown,
    )


def _with_failures(result: PartResult) -> PartResult:
    """An image of which no question was answered is a failure; of others the masks that lack an answer are noted."""
    why: dict[str, str] = result.notes.pop("unanswered", {})
    if not why:
        return result
    columns = result.columns
    lacking: dict[str, set[int]] = {}
    answered: set[str] = set()
    for key, mask_id, shown, choice in zip(
        *(columns[name] for name in ("image_key", "mask_id", "listener_shown", "listener_choice")), strict=True
    ):
        if shown is not None and choice is None:
            lacking.setdefault(key, set()).add(int(mask_id))
        elif choice is not None and mask_id >= 0:
            answered.add(key)
    for key in lacking.keys() - answered:
        result.answers[key] = (0, Failure(f"no question was answered: {why.get(key, 'no reason given')}"[:300]))
    kept = [row for row, key in enumerate(columns["image_key"]) if key in answered or key not in lacking]
    result.columns = {name: [values[row] for row in kept] for name, values in columns.items()}
    if partly := sorted(lacking.keys() & answered):
        result.notes["failed_masks"] = {
            key: {str(mask): why.get(key, "not answered") for mask in sorted(lacking[key])} for key in partly
        }
    return result


def _rows(
    key: str, candidates: Sequence[tuple[CaptionCandidate, bool]], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    given = iter(answers)
    return [
        {
            "image_key": key,
            "mask_id": one.mask_id,
            "candidate_id": one.candidate_id,
            "caption": one.caption,
            **(next(given) if ask else Answer()).row(),
        }
        for one, ask in candidates
    ]


def _no_target_rows(key: str, texts: Sequence[str], nothing: Sequence[bool]) -> list[dict[str, Any]]:
    lonely = [text for text, none in zip(texts, nothing, strict=True) if none]
    return [
        {
            "image_key": key,
            "mask_id": -1,
            "candidate_id": number,
            "caption": text,
            **Answer(choice=-1, targets=()).row(),
        }
        for number, text in enumerate(lonely)
    ]


def _count(counts: dict[str, int], candidates: Sequence[CaptionCandidate], answers: Sequence[Answer]) -> None:
    for one, answer in zip(candidates, answers, strict=True):
        counts["asked"] += 1
        counts["answered"] += answer.choice is not None
        counts["picked"] += answer.choice == one.mask_id
        counts["none"] += answer.choice == -1


class _Others:
    """Texts of other images of the part, drawn for each image from its key."""

    def __init__(self, candidates: dict[str, list[tuple[CaptionCandidate, bool]]], settings: JudgeSettings) -> None:
        self._count, self._seed = settings.no_target_per_image, settings.seed
        self._texts = {
            key: list(dict.fromkeys(one.caption for one, ask in of_image if ask))
            for key, of_image in candidates.items()
        }

    def of(self, key: str) -> list[str]:
        """At most `no_target_per_image` texts that no mask of the image has."""
        if not self._count:
            return []
        own = set(self._texts.get(key, []))
        pool = [text for other, texts in self._texts.items() if other != key for text in texts if text not in own]
        pool = list(dict.fromkeys(pool))
        rng = np.random.default_rng([self._seed, *key.encode()])
        drawn = rng.permutation(len(pool))[: self._count]
        return [pool[index] for index in sorted(drawn.tolist())]


class _Likeness:
    """Cosines of the masks of an image by the scorer of the filter, which is loaded when first asked."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._scorer: Any = None

    def __call__(self, image: MaskedImage) -> np.ndarray:
        from pseudoris_cli.method import scoring

        if self._scorer is None:
            context = self._spec.context
            self._scorer = backends.load(self._spec.settings.scorer, context.numerics, context.device.resolve())
        return scoring.mask_likeness(image, self._scorer, self._spec.settings)
